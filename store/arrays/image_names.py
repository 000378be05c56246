"""Which images a store's rows are of: their names and digests, in stores that hold them."""

from typing import Any

import numpy as np

from store.errors import StoreError

NAME, DIGEST = "image_name", "image_digest"
DIGEST_BYTES = 16


def names_as_bytes(names: np.ndarray) -> np.ndarray:
    """(N, T) uint8 of (N,) bytes: UTF-8, and NUL up to the longest of all."""
    return np.ascontiguousarray(names).view(np.uint8).reshape(len(names), names.dtype.itemsize)


def image_names(store: Any, split: str) -> list[str] | None:
    """The path of each row's image relative to the data set's root; None where the store does not say.

    Args:
        store: a FeatureStore.
        split: of it.

    Raises:
        StoreError: the array is damaged.
    """
    rows = _read(store, split, NAME)
    if rows is None:
        return None
    try:
        return [name.decode() for name in names_from_bytes(rows).tolist()]
    except UnicodeDecodeError as error:
        raise StoreError(
            f"{store.path}: {split}/{NAME} holds a name that is not UTF-8; extract again"
        ) from error


def names_from_bytes(rows: np.ndarray) -> np.ndarray:
    """(N,) bytes of (N, T) uint8."""
    return np.ascontiguousarray(rows).view(f"S{rows.shape[1]}")[:, 0]


def image_digests(store: Any, split: str) -> np.ndarray | None:
    """(N, 16) uint8, XXH3 of 128 bits of each row's image; None where the store does not say.

    Raises:
        StoreError: the array is damaged.
    """
    return _read(store, split, DIGEST)


def _read(store: Any, split: str, name: str) -> np.ndarray | None:
    array = store.arrays.get(f"{split}/{name}")
    if array is None:
        return None
    try:
        return array.read()
    except StoreError as error:
        raise StoreError(f"{store.path}: {split}/{name} is damaged ({error}); extract again") from error
