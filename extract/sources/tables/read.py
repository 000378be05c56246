"""The rows of a table in a file: CSV with commas, semicolons or tabs, a list, Parquet, or JSON."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from extract.sources.tables.annotations import read_annotations
from extract.sources.tables.parquet import read_parquet
from extract.sources.tables.table import Table
from store.errors import UserError
from store.names import shown

PARQUET = b"PAR1"  # a Parquet file starts, and ends, with it
SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas"}
LIST = ("path", "label")  # names for the columns of a list, which has no header


def read_table(file: Path, one_column: bool = False) -> Table:
    """Read a table.

    Args:
        file: its path.
        one_column: whether it may have one column alone, under a header.

    Raises:
        UserError: the file cannot be read or is not a table, or a row has the wrong number of fields.
    """
    try:
        with file.open("rb") as content:
            is_parquet = content.read(len(PARQUET)) == PARQUET
        table = read_parquet(file) if is_parquet else _read_text(file, one_column)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error
    if not len(table):
        found = "holds no images" if table.no_columns else "has a header but no rows"
        raise UserError(f"{file}: {found}; expected a row for every image")
    return table


def _read_text(file: Path, one_column: bool) -> Table:
    if file.suffix.lower() in (".parquet", ".pq"):
        raise UserError(f"{file}: is not a Parquet file (it does not start with {PARQUET.decode()})")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}: is not a table in UTF-8 (byte {error.start:,}); save it as CSV in UTF-8, or as Parquet"
        ) from error
    if file.suffix.lower() == ".json" or text.lstrip()[:1] == "{":
        return read_annotations(file, text)
    first = next((line.strip("\n") for line in io.StringIO(text) if line.strip()), None)
    if first is None:
        raise UserError(f"{file}: is empty; expected a header, and a row for every image")
    separator = max(SEPARATORS, key=first.count)
    if not first.count(separator) and not (one_column and _in_list(first) is None):
        return _read_list(file, text, first)
    rows = _rows(file, text, separator)
    columns = [name.strip() for name in next(rows)[1]]
    lines, fields = [], []
    for line, row in rows:
        if len(row) != len(columns):
            raise UserError(
                f"{file}, line {line}: has {len(row)} field{'s' * (len(row) != 1)}, expected "
                f"{len(columns)} as in the header, separated by {SEPARATORS[separator]}; quote fields that "
                "contain the separator"
            )
        lines.append(line)
        fields.append(row)
    by_column = [list(column) for column in zip(*fields, strict=True)] or [[] for _ in columns]
    for name in columns:
        if name and columns.count(name) > 1:
            raise UserError(f"{file}: has two columns called {shown(name)}; rename one")
    return Table(file, columns, dict(zip(columns, by_column, strict=True)), lines)


def _rows(file: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with its (first) line."""
    lines = io.StringIO(text)  # not splitlines, which also splits at characters that a field may hold
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    line = 1
    try:
        for row in reader:
            if row not in ([], [""]):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{file}, line {line}: cannot be read ({error}); check its quotes") from error


def _read_list(file: Path, text: str, first: str) -> Table:
    """Lines of a path, a space and a whole number, as the lists of ImageNet-LT and Places-LT."""
    if not _in_list(first):
        raise UserError(
            f"{file}: its first line is neither a header, with columns separated by commas, semicolons or "
            f"tabs, nor a path and a class number ({shown(first[:60])})"
        )
    lines, fields = [], []
    for line, row in enumerate(io.StringIO(text), 1):
        if not row.strip():
            continue
        parts = _in_list(row)
        if parts is None:
            raise UserError(
                f"{file}, line {line}: expected a path, a space and a class number, found "
                f"{shown(row.strip()[:60])}"
            )
        lines.append(line)
        fields.append(parts)
    paths, labels = (list(column) for column in zip(*fields, strict=True))
    return Table(
        file,
        list(LIST),
        dict(zip(LIST, (paths, labels), strict=True)),
        lines,
        no_columns="a list without a header",
    )


def _in_list(line: str) -> tuple[str, str] | None:
    parts = line.rsplit(maxsplit=1)
    return (parts[0].strip(), parts[1]) if len(parts) == 2 and parts[1].isdecimal() else None
