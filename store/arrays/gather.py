"""Reading any rows of an array: in storage order, returned in the order requested.

Neighbouring rows are read together, straight into their places in one buffer; each chunk of a compressed
array is decoded once. Several reads run in parallel: one thread copies from the page cache more slowly than
memory allows, and waits for one network answer at a time.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np

from store.arrays.raw import StoredArray

_pools: dict[int, ThreadPoolExecutor] = {}  # by number of threads
os.register_at_fork(after_in_child=_pools.clear)  # threads do not survive a fork


def gather(
    array: StoredArray, rows: np.ndarray, out: np.ndarray | None = None, n_threads: int | None = None
) -> np.ndarray:
    """Read rows of a stored array.

    Args:
        array: the array.
        rows: (R,) row numbers, in any order, repeats allowed.
        out: (R, …) C-contiguous, of the array's dtype, to read into; by default a new one.
        n_threads: threads that read in parallel; by default as many as pay off for where the store is.

    Returns:
        (R, …): `out`, with row `rows[i]` of the array at i.

    Raises:
        StoreError: a file is missing or damaged.
        IndexError: a row number out of range.
        ValueError: `out` has another shape or dtype, or is not contiguous.
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
    n_threads = min(n_threads or array.files.threads(out.nbytes), array.files.most_threads)
    _run(list(array.reads(rows[new], first, out)), n_threads, array.files.most_threads)
    for place, read_at in zip(order[~new].tolist(), first[np.cumsum(new)[~new] - 1].tolist(), strict=True):
        out[place] = out[read_at]
    return out


def _run(reads: list[Callable[[], None]], n_threads: int, most_threads: int) -> None:
    """Run the reads in parallel: each thread takes consecutive ones, the calling thread the first."""
    n_threads = max(1, min(n_threads, len(reads)))
    cuts = [len(reads) * i // n_threads for i in range(n_threads + 1)]
    others: list[Future] = []
    try:
        for i in range(1, n_threads):
            others.append(_pool(most_threads).submit(_in_turn, reads[cuts[i] : cuts[i + 1]]))
        _in_turn(reads[: cuts[1]])
    finally:
        _wait(others)
    for other in others:
        other.result()


def _wait(others: list[Future]) -> None:
    """Wait for all, even after Ctrl-C: none may write to the caller's buffer once this returns."""
    interrupted = None
    while not all(other.done() for other in others):
        try:
            wait(others)
        except KeyboardInterrupt as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _in_turn(reads: list[Callable[[], None]]) -> None:
    for read in reads:
        read()


def _pool(most_threads: int) -> ThreadPoolExecutor:
    if most_threads not in _pools:
        _pools[most_threads] = ThreadPoolExecutor(most_threads - 1, thread_name_prefix="store reader")
    return _pools[most_threads]
