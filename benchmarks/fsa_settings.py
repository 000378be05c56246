"""Settings of FSA by their lag on many stores: "Where the defaults of FSA come from" in docs/methods.md.

Usage: python benchmarks/fsa_settings.py RUNS, the sweeps of each kind and store that
benchmarks/fsa_settings.sh left. The lag of a setting on a store is what it is behind the best setting there,
in points of balanced accuracy on validation images; the best one has the smallest mean over kinds of the mean
over their stores. For each kind, the last lines say what the others would have chosen: how far the choice
depends on a kind. Heads of real rows with the same loss stand beside them, and are not chosen.
"""

import sys
from pathlib import Path

import pandas as pd

SCORES = {"val": "val_balanced_accuracy_mean", "test": "test_balanced_accuracy_mean"}
SHOWN = 8
REAL = "real: "  # the sweep without fused samples


def scores_of(runs: Path) -> pd.DataFrame:
    """One row for each kind, store and setting, with its accuracies in %."""
    rows = []
    for path in sorted(runs.glob("*/*/*/ranking.csv")):
        kind, store, sweep = path.relative_to(runs).parts[:3]
        ranking = pd.read_csv(path)
        # Names leave out what all configurations of a sweep have in common.
        setting = f"{sweep}: " + ranking["configuration"].str.replace(
            r"^(fsa|balanced-softmax),? ?", "", regex=True
        )
        found = {name: ranking[column] for name, column in SCORES.items()}
        rows.append(pd.DataFrame({"kind": kind, "store": store, "setting": setting} | found))
    if not rows:
        raise SystemExit(f"{runs}: no sweeps of benchmarks/fsa_settings.sh")
    return pd.concat(rows, ignore_index=True)


def lags(table: pd.DataFrame) -> pd.DataFrame:
    """Lags, settings × (kind, store), from accuracies; below 0 where real rows lead."""
    return table[~table.index.str.startswith(REAL)].max() - table


def of_kinds(lag: pd.DataFrame) -> pd.DataFrame:
    """Means over the stores of each kind."""
    return lag.T.groupby(level="kind").mean().T


def ordered(lag: pd.DataFrame) -> pd.Series:
    """The mean over kinds of each setting of FSA, smallest first."""
    return lag[~lag.index.str.startswith(REAL)].mean(axis=1).sort_values(kind="stable")


def main() -> None:
    scores = scores_of(Path(sys.argv[1]))
    val, test = (scores.pivot(index="setting", columns=["kind", "store"], values=name) for name in SCORES)
    if val.isna().any(axis=None):
        raise SystemExit("some stores lack a setting; run benchmarks/fsa_settings.sh for all of them")
    on_val, on_test = of_kinds(lags(val)), of_kinds(lags(test))
    means = {"kinds": on_val.mean(axis=1), "stores": lags(val).mean(axis=1), "test": on_test.mean(axis=1)}
    found, order = on_val.assign(**means).round(2), ordered(on_val)
    print(
        "points behind the best on val; kinds, stores: means over these; test: over kinds, on test images\n"
    )
    print(found.loc[order.index[:SHOWN]].to_string(), "\nthe best of each sweep, and real rows:", sep="\n")
    sweep = order.index.str.partition(": ").get_level_values(0)
    best, real = order.groupby(sweep).idxmin().loc[sweep.unique()], found.index.str.startswith(REAL)
    print(pd.concat([found.loc[best], found[real].sort_values("kinds").head(3)]).to_string())
    if on_val.shape[1] == 1:
        return
    print("\non each kind, on test images: what the other kinds would have chosen, and its own choice:")
    for kind in on_val:
        others, own = ordered(on_val.drop(columns=kind)).index[0], ordered(on_val[[kind]]).index[0]
        for chosen in (others, own):
            print(f"{kind}: {test.loc[chosen, kind].mean():.1f} with {chosen}")


if __name__ == "__main__":
    main()
