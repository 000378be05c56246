"""Images that belong to no data set: files, folders of them, and tables with a column of paths."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extract.images.embedded import EmbeddedImage
from extract.images.image_set import ImageSet
from extract.sources.folders import images_below
from extract.sources.tables.columns import find_path_column
from extract.sources.tables.embedded import Embedded
from extract.sources.tables.read import read_table
from store.errors import UserError, check_utf8
from store.names import shown

TABLES = (".csv", ".tsv", ".txt", ".parquet", ".pq")


@dataclass(frozen=True)
class LooseImage:
    """An image file, or an image inside of a Parquet file.

    Attributes:
        name: as the user wrote it; below a folder or inside of a file, with that as the user wrote it.
        path: where it is.
        folder: the absolute folder that was named, or in which the named file or table is.
    """

    name: str
    path: Path | EmbeddedImage
    folder: str

    @property
    def absolute(self) -> str:
        """Its absolute path; links are not followed."""
        return os.path.abspath(str(self.path))


def find_images(places: Sequence[str], path_column: str | None) -> list[LooseImage]:
    """The images at each place, in the order of places; below a folder sorted by path, in a table by row.

    Args:
        places: image files, folders, and tables.
        path_column: the column of paths in tables, or of images in Parquet files; None for the obvious one.
            Paths are relative to the table's folder.

    Raises:
        UserError: a folder without images, a table that cannot be read, or a name that is not UTF-8.
    """
    found = [image for place in places for image in _at(place, path_column)]
    check_utf8(*(image.name for image in found))
    return found


def _at(place: str, path_column: str | None) -> Iterator[LooseImage]:
    path = Path(place)
    if path.is_dir():
        names = images_below(path)
        if not names:
            raise UserError(f"{place}: holds no images; name another folder")
        for name in names:
            yield LooseImage(os.path.join(place, name), path / name, os.path.abspath(path))
    elif path.suffix.lower() in TABLES:
        yield from _in_table(place, path_column)
    else:
        yield LooseImage(place, path, os.path.dirname(os.path.abspath(path)))


def _in_table(place: str, path_column: str | None) -> Iterator[LooseImage]:
    table = Path(place)
    folder, read = os.path.dirname(os.path.abspath(table)), read_table(table, one_column=True)
    column = find_path_column(read, path_column)
    images = Embedded.of(read, column, Path(folder).resolve())
    for row, name in enumerate(read.values[column]):
        if images is not None:
            below = images.name(row, name).partition("/")[2]
            path = images.image(row, os.path.join(os.path.abspath(place), below))
            yield LooseImage(os.path.join(place, below), path, folder)
            continue
        if name is None or not name.strip():
            raise UserError(f"{read.place(row)}: the path is empty (column {shown(column)}); fill it in")
        path = table.parent / name
        if not path.is_file():
            raise UserError(
                f"{read.place(row)}: {shown(name)}: no such file; paths are relative to the table's folder"
            )
        image = LooseImage(name, path, folder)
        below = image.absolute.startswith(os.path.join(folder, ""))
        yield image if below else LooseImage(name, path, os.path.dirname(image.absolute))


def as_image_set(images: Sequence[LooseImage]) -> ImageSet:
    """Loose images as a split whose labels are unknown (0)."""
    n_images = len(images)
    return ImageSet([image.path for image in images], np.zeros(n_images, np.int64), np.arange(n_images))
