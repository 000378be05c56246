"""Settings of FSA by their lag on many stores: "Where the defaults of FSA come from" in docs/methods.md.

Usage: python benchmarks/fsa_settings.py RUNS, the sweeps of each kind and store that
benchmarks/fsa_settings.sh left. The lag of a setting on a store is what it is behind the best setting there,
in points of balanced accuracy on validation images; the best one has the smallest mean over kinds of the mean
over their stores. For each kind, the last lines say what the others would have chosen: how far the choice
depends on a kind.
"""

import sys
from pathlib import Path

import pandas as pd

SCORES = {"val": "val_balanced_accuracy_mean", "test": "test_balanced_accuracy_mean"}
SHOWN = 8


def scores_of(runs: Path) -> pd.DataFrame:
    """One row for each kind, store and setting, with its accuracies in %."""
    rows = []
    for path in sorted(runs.glob("*/*/*/ranking.csv")):
        kind, store, sweep = path.relative_to(runs).parts[:3]
        ranking = pd.read_csv(path)
        # Names leave out what all configurations of a sweep have in common.
        setting = f"{sweep}: " + ranking["configuration"].str.replace(r"^fsa,? ?", "", regex=True)
        found = {name: ranking[column] for name, column in SCORES.items()}
        rows.append(pd.DataFrame({"kind": kind, "store": store, "setting": setting} | found))
    if not rows:
        raise SystemExit(f"{runs}: no sweeps of benchmarks/fsa_settings.sh")
    return pd.concat(rows, ignore_index=True)


def lags(table: pd.DataFrame) -> pd.DataFrame:
    """Mean lag of each setting on each kind, from accuracies settings × (kind, store)."""
    return (table.max() - table).T.groupby(level="kind").mean().T


def ordered(of_kinds: pd.DataFrame) -> pd.Series:
    """The mean over kinds, smallest first."""
    return of_kinds.mean(axis=1).sort_values(kind="stable")


def main() -> None:
    scores = scores_of(Path(sys.argv[1]))
    val, test = (scores.pivot(index="setting", columns=["kind", "store"], values=name) for name in SCORES)
    if val.isna().any(axis=None):
        raise SystemExit("some stores lack a setting; run benchmarks/fsa_settings.sh for all of them")
    on_val, on_test = lags(val), lags(test)
    order = ordered(on_val)
    of_stores = (val.max() - val).mean(axis=1)
    found = on_val.assign(kinds=order, stores=of_stores, test=on_test.mean(axis=1)).loc[order.index].round(2)
    batches = order.index.str.partition(": ").get_level_values(0)
    print("points behind the best setting on val; kinds, stores: means over these; test: over kinds, there\n")
    print(found.head(SHOWN).to_string(), "\nthe best of each way to draw batches:", sep="\n")
    print(found.loc[order.groupby(batches).idxmin().loc[batches.unique()]].to_string())
    if on_val.shape[1] == 1:
        return
    print("\non each kind, on test images: what the other kinds would have chosen, and its own choice:")
    for kind in on_val:
        others, own = ordered(on_val.drop(columns=kind)).index[0], on_val[kind].idxmin()
        for chosen in (others, own):
            print(f"{kind}: {test.loc[chosen, kind].mean():.1f} with {chosen}")


if __name__ == "__main__":
    main()
