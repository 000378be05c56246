"""The rows of one or more tables: an image each, with its split and its label, all checked."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from extract.images.embedded import EmbeddedImage, size_in_words
from extract.sources.held_out import SPELLINGS, split_called
from extract.sources.tables.columns import Columns, find_columns
from extract.sources.tables.embedded import Embedded
from extract.sources.tables.files import table_files
from extract.sources.tables.published import difference
from extract.sources.tables.read import read_table
from extract.sources.tables.table import Table
from store.errors import UserError
from store.names import shown


@dataclass
class Rows:
    """Every image of the tables once.

    Attributes:
        split, label, group: of each image by its name, the path below the root: its split, its label as text,
            and what it shares with images that belong together; no groups if none are asked for.
        row: table and number of each image's row.
        embedded: images that are not files, by name.
        names: names of classes by their numbers as text, if the tables have them, and the table that does.
        repeated: rows of images that were there before, with the same label and split.
        notes: what the user should know.
    """

    split: dict[str, str] = field(default_factory=dict)
    label: dict[str, str] = field(default_factory=dict)
    group: dict[str, str] = field(default_factory=dict)
    row: dict[str, tuple[Table, int]] = field(default_factory=dict)
    embedded: dict[str, EmbeddedImage] = field(default_factory=dict)
    names: dict[str, str] | None = None
    named_by: Table | None = None
    repeated: list[tuple[Table, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, row: tuple[Table, int], split: str, label: str, group: str | None) -> None:
        """Add the image of a row.

        Raises:
            UserError: it was there before, with another label, split or group.
        """
        if name not in self.split:
            self.split[name], self.label[name], self.row[name] = split, label, row
            if group is not None:
                self.group[name] = group
            return
        before = self.label[name], self.split[name], self.group.get(name)
        for what, then, now in zip(
            ("labels", "splits", "groups"), before, (label, split, group), strict=True
        ):
            if then != now:
                raise UserError(
                    f"{_place(row)}: {shown(name)} has two {what}, {shown(then)} ({self.place(name)}) "
                    f"and {shown(now)}; keep one of the rows"
                )
        self.repeated.append(row)

    def add_names(self, table: Table, label: str) -> None:
        """Add the names of classes that a table has for its column of labels.

        Raises:
            UserError: another table has another name for a number.
        """
        names = table.names.get(label)
        for number, name in (names or {}).items() if self.names else ():
            if (before := self.names.get(number, name)) != name:
                raise UserError(
                    f"{table.file}: class {number} is called {shown(name)}, but {shown(before)} in "
                    f"{self.named_by.file}; use files that go together"
                )
        if names is not None and self.names is None:
            self.names, self.named_by = names, table

    def place(self, name: str) -> str:
        """File and line of an image's row, for messages."""
        return _place(self.row[name])

    def first_of(self, label: str) -> str:
        """File and line of the first row with a label."""
        return self.place(next(name for name, of_row in self.label.items() if of_row == label))


def _place(row: tuple[Table, int]) -> str:
    table, number = row
    return table.place(number)


def read_rows(root: Path, config: Any) -> Rows:
    """Read the tables that the DatasetConfig `config` names.

    Args:
        root: the folder that paths are relative to, absolute and without links.

    Raises:
        UserError: a table or a row that cannot be used, with its file and line.
    """
    rows, header = Rows(), None
    is_only = config.val is None and config.test is None
    for file, file_split in table_files(config):
        table = read_table(file)
        columns = find_columns(table, config)
        if not is_only and config.split_column is not None:
            raise UserError(
                f"--split-column {config.split_column}: --val and --test say the splits; leave it out"
            )
        if (said := difference(table.file)) is not None:
            rows.notes.append(said)
        if table.columns != header and (said := columns.in_words(table)):
            rows.notes.append(said)
        header = table.columns
        rows.add_names(table, columns.label)
        _add(rows, table, columns, (root, config.moved_from), file_split)
    columns = {id(image.column): image.column for image in rows.embedded.values()}
    if columns and (said := size_in_words(columns.values())) is not None:
        rows.notes.append(said)
    if rows.repeated:
        n = len(rows.repeated)
        many = f"; {n:,} such rows count once" if n > 1 else ", and counts once"
        rows.notes.append(f"{_place(rows.repeated[0])}: repeats an earlier row{many}")
    return rows


def _add(
    rows: Rows, table: Table, columns: Columns, roots: tuple[Path, str | None], file_split: str | None
) -> None:
    """Add the rows of a table; `file_split` is the split of the whole file, None if its rows say it."""
    paths, labels = table.values[columns.path], table.values[columns.label]
    images = Embedded.of(table, columns.path, roots[0])
    groups = None if columns.group is None else table.values[columns.group]
    if columns.label in table.decimals and None not in labels:
        raise UserError(
            f"{table.file}: the column {shown(columns.label)} holds numbers with decimals, but labels are "
            "names or whole numbers; convert them, or name another --label-column"
        )
    for row, split in enumerate(_splits(table, columns, file_split)):
        path, label, group = paths[row], labels[row], groups[row] if groups else None
        needed = {"path": path if images is None else images.below, "label": label} | (
            {"group": group} if groups else {}
        )
        for what, value in needed.items():
            if value is None or not value.strip():
                column = shown(getattr(columns, what))
                raise UserError(f"{table.place(row)}: the {what} is empty (column {column}); fill it in")
        try:
            name = name_of(path, *roots) if images is None else images.name(row, path)
        except UserError as error:
            raise UserError(f"{table.place(row)}: {error}") from error
        if images is not None:
            rows.embedded[name] = images.image(row, name)
        rows.add(name, (table, row), split, label.strip(), group and group.strip())


def _splits(table: Table, columns: Columns, file_split: str | None) -> Iterator[str]:
    """The split of each row."""
    if columns.split is None:
        for _ in range(len(table)):
            yield file_split or "train"
        return
    for row, value in enumerate(table.values[columns.split]):
        split = split_called((value or "").strip())
        if file_split is not None and split not in (None, file_split):
            raise UserError(
                f"{table.place(row)}: belongs to {shown(value)} (column {shown(columns.split)}), but the "
                f"file is given as --{file_split}; leave out --val and --test to divide it by that column, "
                "or remove the row"
            )
        if file_split is None and split is None:
            raise UserError(
                f"{table.place(row)}: {shown(value or '')!r} names no split (column "
                f"{shown(columns.split)}); expected one of {', '.join(SPELLINGS)}"
            )
        yield file_split or split


def name_of(path: str, root: Path, moved_from: str | None = None) -> str:
    """The path of an image below the root, with `/` and without needless parts.

    Args:
        path: as in a table; if absolute, below the root or below the one that the images have moved from.
        root: absolute, without links.
        moved_from: the root at the time of training.

    Raises:
        UserError: it leads out of the root, or cannot be a path.
    """
    if not {"", ".", ".."} & set(path.split("/")) and "\0" not in path:
        return path
    if "\0" in path:
        raise UserError(f"{shown(path)} is not a path")
    parts = PurePosixPath(path)
    if parts.is_absolute() and ".." not in parts.parts:
        if moved_from is not None and parts.is_relative_to(moved_from):
            parts = root / parts.relative_to(moved_from)
        elif not parts.is_relative_to(root):  # perhaps through a link above the root
            parts = PurePosixPath(Path(path).parent.resolve()) / parts.name
        if not parts.is_relative_to(root):
            raise UserError(
                f"{shown(path)} is not below {root}; name the folder that holds the images with --root"
            )
        parts = parts.relative_to(root)
    if ".." in parts.parts or not parts.parts:
        raise UserError(
            f"{shown(path)} does not stay below {root}; write paths without .., below the folder that "
            "--root names"
        )
    return str(parts)
