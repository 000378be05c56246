"""Speed and free space of a disk, measured at the store's location with blocks and rows of its size.

The page cache is dropped before reads from the disk, where the system can (not on in-memory file systems).
A few seconds may or may not fill the caches of a disk, so these are estimates.
"""

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store.arrays.gather import gather
from store.arrays.raw import Extent, StoredArray
from store.errors import StoreError
from store.storage.mmap_files import MappedFiles

FREE_SHARE = 0.05  # most of the free space that a measurement writes
LEAST_BYTES = 1024**2  # a measurement with less would be meaningless
ROWS = 64  # rows of a random read: the maps that one iteration of Phase II needs
RUN_BYTES = 64 * 1024**2  # bytes of a sequential read


@dataclass(frozen=True)
class DiskSpeed:
    """Speeds in bytes per second.

    Attributes:
        write: writing blocks, each synced.
        read: reading rows in order, from the disk.
        read_random: reading single rows, from the disk.
        read_cached: reading the same rows again, from the page cache.
        n_bytes: bytes written for the measurement.
    """

    write: float
    read: float
    read_random: float
    read_cached: float
    n_bytes: int


def existing_folder(path: Path) -> Path:
    """The nearest existing folder above a path."""
    return next(parent for parent in Path(os.path.realpath(path)).parents if parent.is_dir())


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder."""
    return shutil.disk_usage(folder).free


def measure_disk(folder: Path, block_bytes: int, row_bytes: int, seconds: float) -> DiskSpeed | None:
    """Write blocks to a temporary file, and read rows from it.

    Args:
        folder: an existing folder.
        block_bytes: bytes to write and sync at a time.
        row_bytes: bytes of a row.
        seconds: time for each of writing, sequential reading and random reading.

    Returns:
        The speeds; None if the disk has too little space to measure.

    Raises:
        StoreError: the folder is not writable.
    """
    most_bytes = int(free_bytes(folder) * FREE_SHARE)
    if most_bytes < max(LEAST_BYTES, row_bytes):
        return None
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".tailcache-plan-", buffering=0) as file:
            block_bytes = min(max(block_bytes, row_bytes), most_bytes)
            n_bytes, write = _write(file.fileno(), block_bytes, most_bytes, seconds)
            n_rows = n_bytes // row_bytes
            extent = Extent(Path(file.name), 0, 0, n_rows, n_bytes)

            def opened() -> StoredArray:
                return StoredArray(
                    "measured rows", (n_rows, row_bytes), np.dtype(np.uint8), [extent], MappedFiles()
                )

            _drop_cache(file.fileno())
            read = _read_in_order(opened(), seconds)
            _drop_cache(file.fileno())
            rows = np.random.default_rng(0).permutation(n_rows)
            array = opened()
            n_read, random = _read_rows(array, rows, seconds)
            _, cached = _read_rows(array, rows[:n_read], seconds)
            return DiskSpeed(write, read, random, cached, n_bytes)
    except OSError as error:
        raise StoreError(
            f"{folder}: cannot be measured ({error.strerror}); give a --store in a writable folder"
        ) from error


def _write(file: int, block_bytes: int, most_bytes: int, seconds: float) -> tuple[int, float]:
    """Bytes written, and bytes per second."""
    block = np.random.default_rng(0).bytes(block_bytes)  # not zeros, which some file systems do not store
    started, n_bytes, elapsed = time.perf_counter(), 0, 0.0
    while not n_bytes or (elapsed < seconds and n_bytes + block_bytes <= most_bytes):
        rest = memoryview(block)
        while len(rest):
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
        n_bytes += block_bytes
        elapsed = time.perf_counter() - started
    return n_bytes, n_bytes / elapsed


def _drop_cache(file: int) -> None:
    """Drop a synced file's pages from the page cache; none may be memory-mapped."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def _read_in_order(array: StoredArray, seconds: float) -> float:
    """Bytes per second."""
    at_a_time = max(1, RUN_BYTES // array.row_bytes)
    started, n_rows, elapsed = time.perf_counter(), 0, 0.0
    while n_rows < array.shape[0] and not elapsed > seconds:
        n_rows += len(array.read(n_rows, min(n_rows + at_a_time, array.shape[0])))
        elapsed = time.perf_counter() - started
    return n_rows * array.row_bytes / elapsed


def _read_rows(array: StoredArray, rows: np.ndarray, seconds: float) -> tuple[int, float]:
    """Rows read within the time, and bytes per second."""
    out = np.empty((ROWS, array.row_bytes), np.uint8)
    started, n_rows, elapsed = time.perf_counter(), 0, 0.0
    while n_rows < len(rows) and not elapsed > seconds:
        some = rows[n_rows : n_rows + ROWS]
        gather(array, some, out[: len(some)])
        n_rows += len(some)
        elapsed = time.perf_counter() - started
    return n_rows, n_rows * array.row_bytes / elapsed
