"""Which columns of a table hold paths, labels and splits: as the options say, or guessed from their names."""

from dataclasses import dataclass
from typing import Any

from extract.sources.folders import KNOWN
from extract.sources.held_out import split_called
from extract.sources.tables.table import Table
from store.errors import UserError
from store.names import shown

NAMES = {  # in lower case, with _ for spaces and hyphens
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "img", "image_path",
             "img_path", "image_file", "image_name", "relative_path", "impath"),
    "label": ("label", "labels", "class", "classes", "category", "target", "class_name", "category_name",
              "label_name", "class_id", "category_id", "label_id", "class_label", "species", "y"),
    "split": ("split", "set", "subset", "fold", "partition"),
}  # fmt: skip
HOLDS = {"path": "the paths of images", "label": "their classes", "split": "their splits"}


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are used; `split` and `group` are None if there is none."""

    path: str
    label: str
    split: str | None
    group: str | None = None
    guessed: tuple[str, ...] = ()

    def in_words(self, table: Table) -> str:
        """Which columns are used, and the options that can name others; empty if none was guessed."""
        if not self.guessed or table.no_columns:
            return ""
        split = "" if self.split is None else f", splits from {shown(self.split)}"
        options = " and ".join(f"--{kind}-column" for kind in self.guessed)
        what = "images" if self.path in table.images else "paths"
        return (
            f"{table.file}: {what} are taken from the column {shown(self.path)}, labels from "
            f"{shown(self.label)}{split}; {options} can name others"
        )


def find_columns(table: Table, config: Any) -> Columns:
    """The columns that the DatasetConfig `config` names, or that are obvious.

    A column that is called like one of splits is one only if it names any split.

    Raises:
        UserError: there is no such column, or it is not obvious which.
    """
    _check_header(table)
    found: dict[str, str | None] = {}
    guessed = []
    for kind in (*NAMES, "group"):
        name = getattr(config, f"{kind}_column")
        if name is not None:
            _check_column(table, kind, name)
            found[kind] = name
        elif kind in NAMES and (guess := _guessed(table, kind)) is not None:
            found[kind] = guess
            guessed.append(kind)
    if found["path"] == found["label"]:
        raise UserError(
            f"{table.file}: paths and labels cannot both come from the column {shown(found['path'])}"
        )
    return Columns(found["path"], found["label"], found.get("split"), found.get("group"), tuple(guessed))


def _check_header(table: Table) -> None:
    """Raise UserError for a table without a header, whose first row would be lost."""
    first = next((name for name in table.columns if name.lower().endswith(KNOWN)), None)
    if table.lines is not None and not table.no_columns and first is not None:
        raise UserError(
            f"{table.file}: its first line is a row, with {shown(first)}, and no header; write the names of "
            "the columns above it, such as path and label, separated as the rows are"
        )


def find_path_column(table: Table, name: str | None) -> str:
    """The column of paths, or of images in a Parquet file, with a name; None for the obvious one.

    Raises:
        UserError: there is no such column, or it is not obvious which.
    """
    _check_header(table)
    if name is None:
        return _guessed(table, "path")
    _check_column(table, "path", name)
    return name


def _check_column(table: Table, kind: str, name: str) -> None:
    option = f"--{kind}-column {shown(name)}"
    if table.no_columns:
        raise UserError(f"{option}: {table.file} is {table.no_columns}; leave it out")
    if name not in table.columns:
        raise UserError(f"{option}: {table.file} has no such column; {_those(table)}")


def _guessed(table: Table, kind: str) -> str | None:
    known = [
        name for name in table.columns if name.lower().replace(" ", "_").replace("-", "_") in NAMES[kind]
    ]
    if kind == "path" and table.images:
        known = [name for name in table.images if len(table.images) == 1 or name in known]
    if kind == "label" and not known:
        known = list(table.names)
    if kind == "split":
        known = [name for name in known if any(split_called((v or "").strip()) for v in table.values[name])]
        if len(known) < 2:
            return known[0] if known else None
    if len(known) != 1:
        which = f"{' and '.join(map(shown, known))} could be" if known else "no column is obviously"
        raise UserError(
            f"{table.file}: {which} the column of {HOLDS[kind]}; name it with --{kind}-column: "
            f"{_those(table)}"
        )
    return known[0]


def _those(table: Table) -> str:
    where = "it has" if table.lines is None else "its first line has"
    return f"{where} {', '.join(map(shown, table.columns))}"
