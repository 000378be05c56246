"""Images inside of Parquet files, as Hugging Face's data sets keep them: read there, and never extracted.

A Parquet file is read by row groups, of about a hundred images. Those that were read last are kept, as far as
memory allows; if all fit, each is read once.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

SHARE = 0.5  # of the available memory, for all processes together


class ImageColumn:
    """The images of one file: a column of bytes, or the field `bytes` of a column of structs.

    Attributes:
        file: the Parquet file.
        column: name of the column.
        field: `bytes`, or None.
        state: of the file when it was listed, so that another one in its place is not taken for it.
        starts: (G + 1,) int64, the first row of each of the G row groups, and the number of rows.
        n_bytes: of all images.
    """

    def __init__(self, file: Path, column: str, field: str | None, starts: np.ndarray, n_bytes: int):
        self.file, self.column, self.field, self.starts, self.n_bytes = file, column, field, starts, n_bytes
        found = file.stat()
        self.state = found.st_ino, found.st_mtime_ns, found.st_size

    def read(self, row: int) -> bytes:
        """The file that a row holds.

        Raises:
            OSError: the Parquet file cannot be read, or the row holds no image.
        """
        group = int(np.searchsorted(self.starts, row, side="right")) - 1
        value = _KEPT.group(self, group)[row - int(self.starts[group])].as_py()
        if value is None:
            raise OSError("its row holds no bytes")
        return value

    def load(self, group: int) -> Any:
        """The images of a row group, a pyarrow array of binary values."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        # Opened again each time, without threads: worker processes that are forked share no handle.
        try:
            with pq.ParquetFile(self.file, pre_buffer=False) as parquet:
                named = self.column if self.field is None else f"{self.column}.{self.field}"
                read = parquet.read_row_group(group, [named], use_threads=False).column(0)
            return (read if self.field is None else pc.struct_field(read, self.field)).combine_chunks()
        except Exception as error:  # damaged files can fail anywhere in pyarrow
            raise OSError(f"{self.file}: {error}") from error


class EmbeddedImage:
    """One image of a column, which reads like the path of a file."""

    __slots__ = ("_row", "_text", "column")

    def __init__(self, column: ImageColumn, row: int, text: str):
        self.column, self._row, self._text = column, row, text

    def __str__(self) -> str:
        return self._text

    def read_bytes(self) -> bytes:
        """The file.

        Raises:
            OSError: it cannot be read.
        """
        return self.column.read(self._row)


def is_embedded(images: Sequence[object]) -> bool:
    """Whether images of a split lie inside of Parquet files."""
    return bool(len(images)) and isinstance(images[0], EmbeddedImage)


class _Kept:
    """Row groups that were read last, the oldest first."""

    def __init__(self) -> None:
        self._groups: OrderedDict[tuple, Any] = OrderedDict()
        self._n_bytes, self._most = 0, None
        self.lock = threading.Lock()

    def group(self, column: ImageColumn, number: int) -> Any:
        """A row group, read now if it is not kept."""
        key = (str(column.file), column.state, column.column, number)
        with self.lock:
            if key in self._groups:
                self._groups.move_to_end(key)
                return self._groups[key]
            if self._most is None:
                self._most = most_kept()
            loaded = self._groups[key] = column.load(number)
            self._n_bytes += loaded.nbytes
            while self._n_bytes > self._most and len(self._groups) > 1:
                self._n_bytes -= self._groups.popitem(last=False)[1].nbytes
            return loaded


_KEPT = _Kept()


def _new_lock() -> None:
    _KEPT.lock = threading.Lock()  # a thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def most_kept() -> int:
    """Bytes of images that one process may keep: workers have their own."""
    return int(SHARE * psutil.virtual_memory().available / (1 + (os.cpu_count() or 1)))


def size_in_words(columns: Iterable[ImageColumn]) -> str | None:
    """What to say of images that do not fit in memory; None if they do."""
    columns = list(columns)
    n_bytes, most = sum(column.n_bytes for column in columns), most_kept()
    if n_bytes <= most:
        return None
    n_rows = sum(int(column.starts[-1]) for column in columns)
    n_groups = sum(len(column.starts) - 1 for column in columns)
    return (
        f"{columns[0].file.parent}: {n_bytes / 2**30:.1f} GiB of images in Parquet files, of which each "
        f"process keeps {most / 2**30:.1f} GiB; for each other image, a row group of about "
        f"{n_rows / n_groups:,.0f} is read, so files of images would be faster"
    )
