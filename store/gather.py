"""Planned row reads: any rows in any order, read in storage order, delivered in the order asked for.

Neighbouring rows are read in one call, which scatters them straight to their places in one buffer; of
compressed arrays every chunk is decoded once. Several reads run at once, for one thread copies from the page
cache more slowly than memory can.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from store.extents import StoredArray

MOST_THREADS = 4
WORTH_A_THREAD = 2**20  # bytes
_pools: list[ThreadPoolExecutor] = []
os.register_at_fork(after_in_child=_pools.clear)  # threads do not survive a fork


def gather(
    array: StoredArray, rows: np.ndarray, out: np.ndarray | None = None, n_threads: int | None = None
) -> np.ndarray:
    """Read rows of a stored array.

    Args:
        array: the array.
        rows: (R,) row numbers, in any order, repeats allowed.
        out: (R, …) C-contiguous, of the array's dtype, to read into; a new one without it.
        n_threads: that read at once, at most 4; by default as many as there are processors.

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
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    new = np.concatenate([[True], rows[1:] != rows[:-1]])[: len(rows)]
    first = order[new]
    _run(list(array.reads(rows[new], first, out)), n_threads or _default_threads(out.nbytes))
    for place, read_at in zip(order[~new].tolist(), first[np.cumsum(new)[~new] - 1].tolist(), strict=True):
        out[place] = out[read_at]
    return out


def _default_threads(n_bytes: int) -> int:
    if n_bytes < WORTH_A_THREAD:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(reads: list[Callable[[], None]], n_threads: int) -> None:
    """Make the reads, each thread a run of neighbours of them, the caller's among the threads."""
    n_threads = max(1, min(n_threads, MOST_THREADS, len(reads)))
    cuts = [len(reads) * i // n_threads for i in range(n_threads + 1)]
    others = [_pool().submit(_in_turn, reads[cuts[i] : cuts[i + 1]]) for i in range(1, n_threads)]
    try:
        _in_turn(reads[: cuts[1]])
    finally:
        for other in others:  # none may write to the buffer once this has ended
            other.exception()
    for other in others:
        other.result()


def _in_turn(reads: list[Callable[[], None]]) -> None:
    for read in reads:
        read()


def _pool() -> ThreadPoolExecutor:
    if not _pools:
        _pools.append(ThreadPoolExecutor(MOST_THREADS - 1, thread_name_prefix="store reader"))
    return _pools[0]
