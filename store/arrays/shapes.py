"""Checks that the arrays of a store fit together: one length for each axis, and the schema's dtypes."""

from typing import Any

from store.arrays.image_names import DIGEST_BYTES
from store.errors import StoreError
from store.schema import (
    CLASSIFIER,
    FINISHED,
    OF_IMAGES,
    OF_ROOT,
    ArraySpec,
    layer_arrays,
    split_arrays,
)


def check_shapes(store: Any) -> None:
    """Raise StoreError if an axis has two lengths, or an array has another dtype than the schema's."""
    lengths = {"K": len(store.class_names), "1": 1, "D": DIGEST_BYTES}
    if FINISHED in store.arrays:
        _fit(store, "", OF_ROOT, lengths)
    _fit(store, "classifier", CLASSIFIER, lengths)
    for split in store.splits:
        for axis in ("N", "n", "T", "G"):
            lengths.pop(axis, None)
        _fit(store, split, split_arrays(split, store.map_dtype), lengths)
        if split == "train":
            for layer, dtype in store.layer_dtypes.items():  # each has an H, W and C of its own
                of_rows = {axis: lengths[axis] for axis in ("N", "n") if axis in lengths}
                _fit(store, split, layer_arrays(layer, dtype), of_rows)
        of_images = {name: s for name, s in OF_IMAGES.items() if f"{split}/{name}" in store.arrays}
        _fit(store, split, of_images, lengths)


def _fit(store: Any, group: str, specs: dict[str, ArraySpec], lengths: dict[str, int]) -> None:
    for name, spec in specs.items():
        path = f"{group}/{name}".lstrip("/")
        array = store.array(path)
        if len(array.shape) == len(spec.axes):  # the first array with an axis sets its length
            lengths |= dict(zip(spec.axes, array.shape, strict=True)) | lengths
        shape = tuple(lengths.get(axis, 0) for axis in spec.axes)
        if (array.shape, array.dtype.name) != (shape, spec.dtype) or 0 in shape:
            expected = f"{spec.dtype} {', '.join(spec.axes)} = {shape}"
            raise StoreError(
                f"{store.path}: {path} is {array.dtype.name} {array.shape}, expected {expected}, "
                "to fit the other arrays; extract again"
            )
