"""A table as text, whatever its file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extract.images.embedded import ImageColumn


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        file: its path.
        columns: names of the columns, in order.
        values: the values of each column, as they stand there; None where Parquet has none.
        lines: the line of each row, for messages; None for files without lines, whose rows are counted.
        decimals: columns of Parquet that hold numbers with decimals.
        no_columns: what the file is if its columns have no names; empty for others.
        row: what a row is called in messages.
        names: names of classes by their numbers as text, for columns of labels of which the file has them.
        images: columns that hold images themselves; their values are the images' own paths, or None.
    """

    file: Path
    columns: list[str]
    values: dict[str, list[str | None]]
    lines: list[int] | None = None
    decimals: frozenset[str] = frozenset()
    no_columns: str = ""
    row: str = "row"
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    images: "dict[str, ImageColumn]" = field(default_factory=dict)

    def place(self, row: int) -> str:
        """File and line (or row) of a row, for messages."""
        if self.lines is None:
            return f"{self.file}, {self.row} {row + 1}"
        return f"{self.file}, line {self.lines[row]}"

    def __len__(self) -> int:
        return len(self.values[self.columns[0]])
