"""Planned row reads: any rows in any order, read in storage order, delivered in the order asked for.

Neighbouring rows are read in one call, which scatters them straight to their places in one buffer.
"""

from collections.abc import Iterator
from concurrent.futures import Executor
from itertools import pairwise

import numpy as np

from store.extents import StoredArray

MOST_TARGETS = 1024  # of one scattering read (POSIX's IOV_MAX on Linux)


def gather(
    array: StoredArray, rows: np.ndarray, out: np.ndarray | None = None, executor: Executor | None = None
) -> np.ndarray:
    """Read rows of a stored array.

    Args:
        array: the array.
        rows: (R,) row numbers, in any order, repeats allowed.
        out: (R, …) C-contiguous, of the array's dtype, to read into; a new one without it.
        executor: runs several reads at once.

    Returns:
        (R, …): `out`, with row `rows[i]` of the array at i.

    Raises:
        StoreError: a file is missing or damaged.
        IndexError: a row that the array does not have.
        ValueError: `out` is of another shape or dtype, or not contiguous.
    """
    rows = np.asarray(rows, np.int64)
    shape = (len(rows), *array.shape[1:])
    if out is None:
        out = np.empty(shape, array.dtype)
    if out.shape != shape or out.dtype != array.dtype or not out.flags.c_contiguous:
        raise ValueError(f"out is {out.dtype} {out.shape}, expected contiguous {array.dtype} {shape}")
    if len(rows) and not (rows.min() >= 0 and rows.max() < array.shape[0]):
        raise IndexError(f"rows {rows.min()} to {rows.max()} of {array.shape[0]}")
    distinct, first, place = np.unique(rows, return_index=True, return_inverse=True)
    target = memoryview(out.reshape(-1).view(np.uint8)) if out.size else memoryview(b"")
    reads = _plan(distinct, first, array, target)
    if executor is None:
        for start, targets in reads:
            array.read_into(start, targets)
    else:
        list(executor.map(lambda read: array.read_into(*read), reads))
    repeated = np.flatnonzero(first[place] != np.arange(len(rows)))
    if len(repeated):
        out[repeated] = out[first[place[repeated]]]
    return out


def _plan(
    distinct: np.ndarray, first: np.ndarray, array: StoredArray, target: memoryview
) -> Iterator[tuple[int, list[memoryview]]]:
    """The reads, in storage order: first row, and where each row from there on belongs."""
    new_run = (np.diff(distinct) != 1) | (np.diff(distinct // array.block_rows) != 0)
    cuts = [0, *(np.flatnonzero(new_run) + 1).tolist(), len(distinct)] if len(distinct) else []
    for begin, end in pairwise(cuts):
        for start in range(begin, end, MOST_TARGETS):
            places = first[start : min(start + MOST_TARGETS, end)]
            yield int(distinct[start]), _targets(places, array.row_bytes, target)


def _targets(places: np.ndarray, row_bytes: int, target: memoryview) -> list[memoryview]:
    if (np.diff(places) == 1).all():  # neighbours in memory too
        begin = int(places[0]) * row_bytes
        return [target[begin : begin + len(places) * row_bytes]]
    return [target[begin : begin + row_bytes] for begin in (places * row_bytes).tolist()]
