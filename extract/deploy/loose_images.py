"""Images that belong to no data set: files, folders of them, and tables with a column of paths."""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extract.images.image_set import ImageSet
from extract.sources.folders import images_below
from store.errors import UserError, check_utf8
from store.names import shown

TABLES = (".csv", ".tsv")
SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class LooseImage:
    """An image file.

    Attributes:
        name: as the user wrote it; below a folder, with the folder as the user wrote it.
        path: where it is.
        folder: the absolute folder that was named, or in which the named file or table is.
    """

    name: str
    path: Path
    folder: str

    @property
    def absolute(self) -> str:
        """Its absolute path; links are not followed."""
        return os.path.abspath(self.path)


def find_images(places: Sequence[str], path_column: str) -> list[LooseImage]:
    """The images at each place, in the order of places; below a folder sorted by path, in a table by row.

    Args:
        places: image files, folders, and tables.
        path_column: the column of paths in tables; they are relative to the table's folder.

    Raises:
        UserError: a folder without images, a table that cannot be read, or a name that is not UTF-8.
    """
    found = [image for place in places for image in _at(place, path_column)]
    check_utf8(*(image.name for image in found))
    return found


def _at(place: str, path_column: str) -> Iterator[LooseImage]:
    path = Path(place)
    if path.is_dir():
        names = images_below(path)
        if not names:
            raise UserError(f"{place}: holds no images; name another folder")
        for name in names:
            yield LooseImage(os.path.join(place, name), path / name, os.path.abspath(path))
    elif path.suffix.lower() in TABLES:
        yield from _in_table(path, path_column)
    else:
        yield LooseImage(place, path, os.path.dirname(os.path.abspath(path)))


def _in_table(table: Path, path_column: str) -> Iterator[LooseImage]:
    folder, n_images = os.path.dirname(os.path.abspath(table)), 0
    for line, name in _paths_in(table, path_column):
        path = table.parent / name
        if not path.is_file():
            raise UserError(
                f"{table}, line {line}: {shown(name)}: no such file; paths are relative to the table's folder"
            )
        n_images += 1
        image = LooseImage(name, path, folder)
        below = image.absolute.startswith(os.path.join(folder, ""))
        yield image if below else LooseImage(name, path, os.path.dirname(image.absolute))
    if not n_images:
        raise UserError(f"{table}: has no rows; expected a path in each")


def _paths_in(table: Path, path_column: str) -> Iterator[tuple[int, str]]:
    """The number of each row's last line, and its path."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            separator = max(SEPARATORS, key=header.count)  # the first of those that are equal
            rows = csv.DictReader(file, delimiter=separator, strict=True)
            columns = rows.fieldnames or []
            if path_column not in columns:
                found = ", ".join(map(shown, columns)) or "none"
                raise UserError(
                    f"{table}: has no column {path_column!r}, found {found}; "
                    "name the column of the paths with --path-column"
                )
            for row in rows:
                if not row[path_column]:
                    raise UserError(f"{table}, line {rows.line_num}: no path in column {path_column!r}")
                yield rows.line_num, row[path_column]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table}: cannot be read as a table in UTF-8 ({error})") from error


def as_image_set(images: Sequence[LooseImage]) -> ImageSet:
    """Loose images as a split whose labels are unknown (0)."""
    n_images = len(images)
    return ImageSet([image.path for image in images], np.zeros(n_images, np.int64), np.arange(n_images))
