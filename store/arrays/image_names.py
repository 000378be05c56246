"""Names, groups and digests of the images behind a store's rows, in stores that hold them."""

from typing import Any

import numpy as np

from store.errors import StoreError

NAME, GROUP, DIGEST = "image_name", "image_group", "image_digest"
DIGEST_BYTES = 16


def names_as_bytes(names: np.ndarray) -> np.ndarray:
    """(N,) bytes, names or groups, to (N, T) uint8: UTF-8, padded with NUL to the longest."""
    return np.ascontiguousarray(names).view(np.uint8).reshape(len(names), names.dtype.itemsize)


def image_names(store: Any, split: str) -> list[str] | None:
    """The path of each row's image relative to the data set's root; None if the store does not hold it.

    Args:
        store: a FeatureStore.
        split: one of its splits.

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
    """(N, T) uint8 to (N,) bytes."""
    return np.ascontiguousarray(rows).view(f"S{rows.shape[1]}")[:, 0]


def image_digests(store: Any, split: str) -> np.ndarray | None:
    """(N, 16) uint8, the 128-bit XXH3 of each row's image; None if the store does not hold it.

    Raises:
        StoreError: the array is damaged.
    """
    return _read(store, split, DIGEST)


def image_groups(store: Any, split: str) -> np.ndarray | None:
    """(N, G) uint8, what the images of one track, patient or burst share; None if the store has no groups.

    Raises:
        StoreError: the array is damaged.
    """
    return _read(store, split, GROUP)


def _read(store: Any, split: str, name: str) -> np.ndarray | None:
    array = store.arrays.get(f"{split}/{name}")
    if array is None:
        return None
    try:
        return array.read()
    except StoreError as error:
        raise StoreError(f"{store.path}: {split}/{name} is damaged ({error}); extract again") from error
