"""How fast a disk is, and how much room it has: measured where a store is to lie, with its blocks and rows.

The page cache is dropped before the reads from the disk, where the system can (not in a file system that
lives in memory). A few seconds fill the caches of some disks and not of others: these are estimates.
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

FREE_SHARE = 0.05  # of the free space, at most, that a measurement writes
LEAST_BYTES = 1024**2  # less than this says nothing
ROWS = 64  # of a random read: the maps that one iteration of Phase II touches
RUN_BYTES = 64 * 1024**2  # of a read in order


@dataclass(frozen=True)
class DiskSpeed:
    """Bytes a second.

    Attributes:
        write: blocks, each synced.
        read: rows in order, from the disk.
        read_random: single rows, from the disk.
        read_cached: the same rows again, from the page cache.
        n_bytes: written to find out.
    """

    write: float
    read: float
    read_random: float
    read_cached: float
    n_bytes: int


def existing_folder(path: Path) -> Path:
    """The folder in which a path lies, or the nearest one above it that is there."""
    return next(parent for parent in Path(os.path.realpath(path)).parents if parent.is_dir())


def free_bytes(folder: Path) -> int:
    """Free space of the disk that a folder lies on."""
    return shutil.disk_usage(folder).free


def measure_disk(folder: Path, block_bytes: int, row_bytes: int, seconds: float) -> DiskSpeed | None:
    """Write blocks to a file, read rows of it, and remove it.

    Args:
        folder: an existing one.
        block_bytes: written and synced at a time.
        row_bytes: of the rows that are read.
        seconds: for each of the writing, the reading in order, and the random reading.

    Returns:
        None where the disk has no room to measure.

    Raises:
        StoreError: the folder cannot be written.
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
            f"{folder}: cannot be measured ({error.strerror}); name a --store in a folder that can be written"
        ) from error


def _write(file: int, block_bytes: int, most_bytes: int, seconds: float) -> tuple[int, float]:
    """Bytes written, and bytes a second."""
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
    """Let the kernel forget the pages of a synced file, none of which may be mapped."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def _read_in_order(array: StoredArray, seconds: float) -> float:
    """Bytes a second."""
    at_a_time = max(1, RUN_BYTES // array.row_bytes)
    started, n_rows, elapsed = time.perf_counter(), 0, 0.0
    while n_rows < array.shape[0] and not elapsed > seconds:
        n_rows += len(array.read(n_rows, min(n_rows + at_a_time, array.shape[0])))
        elapsed = time.perf_counter() - started
    return n_rows * array.row_bytes / elapsed


def _read_rows(array: StoredArray, rows: np.ndarray, seconds: float) -> tuple[int, float]:
    """Rows read before the time was over, and bytes a second."""
    out = np.empty((ROWS, array.row_bytes), np.uint8)
    started, n_rows, elapsed = time.perf_counter(), 0, 0.0
    while n_rows < len(rows) and not elapsed > seconds:
        some = rows[n_rows : n_rows + ROWS]
        gather(array, some, out[: len(some)])
        n_rows += len(some)
        elapsed = time.perf_counter() - started
    return n_rows, n_rows * array.row_bytes / elapsed
