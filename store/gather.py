"""Planned row reads: any rows in any order, read in storage order, delivered in the order asked for.

Neighbouring rows are read in one call, which scatters them straight to their places in one buffer; of
compressed arrays every chunk is decoded once.
"""

from concurrent.futures import Executor

import numpy as np

from store.extents import StoredArray


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
    reads = array.reads(distinct, first, out)
    if executor is None:
        for read in reads:
            read()
    else:
        list(executor.map(lambda read: read(), reads))
    repeated = np.flatnonzero(first[place] != np.arange(len(rows)))
    if len(repeated):
        out[repeated] = out[first[place[repeated]]]
    return out
