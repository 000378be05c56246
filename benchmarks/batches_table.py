"""The table of "Fused samples and swapped channels in other batches" in docs/methods.md.

Usage: python benchmarks/batches_table.py RUNS NAME..., trainings whose sweeps benchmarks/batches.sh made.
NAME is RECIPE-IMBALANCE-SEED, and trainings that differ in their seeds alone are averaged.
"""

import sys
from pathlib import Path

import pandas as pd

from analysis.tables import format_cell

SPLITS = ("val", "test")


def chosen(training: Path) -> pd.DataFrame:
    """Accuracies in % of the configuration that val chose, one row for each sweep of a training."""
    best = {
        path.parent.name: pd.read_csv(path).iloc[0] for path in (training / "batches").glob("*/ranking.csv")
    }
    if not best:
        raise SystemExit(f"{training}: no sweeps of benchmarks/batches.sh")
    return (
        pd.DataFrame(best)
        .loc[[f"{split}_balanced_accuracy_mean" for split in SPLITS]]
        .T.set_axis(SPLITS, axis=1)
    )


def main() -> None:
    runs, names = Path(sys.argv[1]), sys.argv[2:]
    found = pd.concat({name: chosen(runs / name) for name in names}, axis=1)
    if found.isna().any(axis=None):
        raise SystemExit("some trainings lack a sweep; run benchmarks/batches.sh for all of them")
    val, test = (found.xs(split, axis=1, level=1) for split in SPLITS)
    recipes = test.T.groupby(lambda name: name.rpartition("-")[0], sort=False)
    table = pd.DataFrame(
        {name: val[name].map("{:.1f}".format) + " / " + test[name].map("{:.1f}".format) for name in names}
        | {
            f"test: {recipe}": [
                format_cell(mean, std) for mean, std in zip(of.mean(), of.std(ddof=1), strict=True)
            ]
            for recipe, of in recipes
        }
    )
    print("| | " + " | ".join(table) + " |\n|" + "---|" * (table.shape[1] + 1))
    for sweep in val.mean(axis=1).sort_values().index:
        print(f"| `{sweep}` | " + " | ".join(table.loc[sweep]) + " |")


if __name__ == "__main__":
    main()
