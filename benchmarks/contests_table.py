"""The table of "The contest on other features" in docs/methods.md: every entry on every contest.

Usage: python benchmarks/contests_table.py CONTESTS, the folder that benchmarks/contests.sh left.
"""

import sys
from pathlib import Path

import pandas as pd

from analysis.tables import format_cell

SCORE = "balanced_accuracy"
AVERAGE = "average of "


def entries(contest: Path) -> pd.DataFrame:
    """A contest's table by entry; its average of heads is called `average` whatever it is made of."""
    table = pd.read_csv(contest / "standings.csv")
    is_average = table["entry"].str.startswith(AVERAGE)
    return table.assign(entry=table["entry"].where(~is_average, "average")).set_index("entry")


def cells(table: pd.DataFrame) -> pd.Series:
    """`val / test` of each entry: the first in bold, those that val cannot tell from it with a star."""

    def cell(row: pd.Series) -> str:
        found = " / ".join(
            format_cell(row[f"{split}_{SCORE}_mean"], row[f"{split}_{SCORE}_std"])
            for split in ("val", "test")
        )
        return f"**{found}**" if row.name == table.index[0] else found + " *" * bool(row["together"])

    return table.apply(cell, axis=1)


def main() -> None:
    contests = {path.parent.name: entries(path.parent) for path in Path(sys.argv[1]).glob("*/standings.csv")}
    contests = dict(sorted(contests.items()))
    score = pd.DataFrame({name: table[f"val_{SCORE}_mean"] for name, table in contests.items()})
    lag = score.max() - score
    behind = lag.mean(axis=1).where(lag.notna().all(axis=1))  # a contest has no average that does not help
    print("| entry | " + " | ".join(contests) + " | behind, mean |\n|" + "---|" * (len(contests) + 2))
    found = {name: cells(table) for name, table in contests.items()}
    for entry in lag.mean(axis=1).sort_values().index:
        row = [found[name].get(entry, "–") for name in contests]
        mean = "–" if pd.isna(behind[entry]) else f"{behind[entry]:.1f}"
        print(f"| {entry} | " + " | ".join(row) + f" | {mean} |")


if __name__ == "__main__":
    main()
