"""Settings of FSA by their lag on many stores: "Where the defaults of FSA come from" in docs/methods.md.

Usage: python benchmarks/fsa_settings.py RUNS, the sweeps of each store that benchmarks/fsa_settings.sh left.
The lag of a setting on a store is what it is behind the best setting there, in points of balanced accuracy on
validation images. The best setting has the smallest mean lag over all stores. For each store alone, the last
lines say what the others would have chosen: how far the choice depends on a store.
"""

import sys
from pathlib import Path

import pandas as pd

SCORES = {"val": "val_balanced_accuracy_mean", "test": "test_balanced_accuracy_mean"}
SHOWN = 6


def scores_of(runs: Path) -> pd.DataFrame:
    """One row for each store and setting, with its accuracies in %."""
    rows = []
    for path in sorted(runs.glob("*/*/ranking.csv")):
        ranking = pd.read_csv(path)
        # Names leave out what all configurations of a sweep have in common.
        setting = path.parent.name + ": " + ranking["configuration"].str.replace(r"^fsa,? ?", "", regex=True)
        found = {name: ranking[column] for name, column in SCORES.items()}
        rows.append(pd.DataFrame({"store": path.parent.parent.name, "setting": setting} | found))
    return pd.concat(rows, ignore_index=True)


def lags(table: pd.DataFrame) -> pd.Series:
    """The mean lag of each setting over the stores of a table settings × stores, smallest first."""
    return (table.max() - table).mean(axis=1).sort_values(kind="stable")


def main() -> None:
    scores = scores_of(Path(sys.argv[1]))
    val, test = (scores.pivot(index="setting", columns="store", values=name) for name in SCORES)
    if val.isna().any(axis=None):
        raise SystemExit("some stores lack a setting; run benchmarks/fsa_settings.sh for all of them")
    of_all = lags(val)
    found = pd.DataFrame({"lag on val": of_all, "lag on test": (test.max() - test).mean(axis=1)})
    print(found.loc[of_all.index[:SHOWN]].round(2).to_string(), end="\n\n")
    kinds = of_all.index.str.partition(": ").get_level_values(0)
    best = of_all.groupby(kinds).idxmin()
    for sampling, setting in best.items():
        row = found.loc[setting].round(2).tolist()
        print(
            f"best of {sampling}: {setting.partition(': ')[2]}, behind by {row[0]} on val, {row[1]} on test"
        )
    print("\neach store, and what the other stores would have chosen for it:")
    for store in val:
        chosen = lags(val.drop(columns=store)).index[0] if val.shape[1] > 1 else of_all.index[0]
        own = val[store].idxmax()
        others, alone = test.loc[chosen, store], test.loc[own, store]
        print(f"{store}: {others:.1f} on test with {chosen}; {alone:.1f} with its own choice, {own}")


if __name__ == "__main__":
    main()
