"""The table of "No training at all" in docs/results.md: what validation images chose of every sweep.

Usage: python benchmarks/methods_table.py runs/frozen
"""

import sys
from pathlib import Path

import pandas as pd

from analysis.tables import format_cell

# Means over classes, as sweeps choose.
COLUMNS = (
    *("val_balanced_accuracy", "test_balanced_accuracy"),
    *("test_many", "test_medium", "test_few", "test_head", "test_tail"),
)
NAMES = ("val", "test", "Many", "Medium", "Few", "large", "small")


def best(folder: Path) -> dict[str, str]:
    """The best of a ranking, as cells of a table."""
    row = pd.read_csv(folder / "ranking.csv").iloc[0]
    method, _, options = row["configuration"].partition(", ")
    method = folder.name if "+" in folder.name else method
    cells = {"method": method, "chosen": options.replace(", ", " ")}
    for column, name in zip(COLUMNS, NAMES, strict=True):
        cells[name] = format_cell(row[f"{column}_mean"], row[f"{column}_std"])
    return cells | {"order": row["test_balanced_accuracy_mean"], "seconds": f"{row['seconds']:.2f}"}


def markdown(rows: list[dict[str, str]]) -> str:
    """A table, best test accuracy first."""
    rows = sorted(rows, key=lambda row: -row["order"])
    names = [name for name in rows[0] if name != "order"]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(row[name] for name in names) + " |" for row in rows])


def main() -> None:
    for folder in sorted(Path(sys.argv[1]).glob("im*"), reverse=True):
        sweeps = sorted(path.parent for path in folder.glob("*/ranking.csv"))
        heads = sum(len(pd.read_csv(sweep / "results.csv")) for sweep in sweeps)
        print(f"\n{folder.name}: {heads:,} heads\n\n{markdown([best(sweep) for sweep in sweeps])}")


if __name__ == "__main__":
    main()
