"""Dtypes of feature maps: three floating-point ones, and two lossy ones of one byte a value.

Lossy maps have a scale for every channel of every block: a value is its code times its scale, and the
largest magnitude of the channel in the block gets the largest code. The scales of a block depend on that
block alone, so a store is still written in one pass.
"""

import ml_dtypes
import numpy as np

from store.schema import SCALED

NUMPY = {
    "float16": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int8": np.dtype(np.int8),
    "float8_e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
}
LARGEST_CODE = {"int8": 127.0, "float8_e4m3": 448.0}
# Dtypes that maps may be converted to: never a finer one, which would claim precision that is not there, and
# from lossy codes none, since new scales would differ.
MAY_BECOME = {
    "float32": ("float32", "float16", "bfloat16", "int8", "float8_e4m3"),
    "float16": ("float16", "bfloat16", "int8", "float8_e4m3"),
    "bfloat16": ("bfloat16", "int8", "float8_e4m3"),
    "int8": ("int8",),
    "float8_e4m3": ("float8_e4m3",),
}
# Largest error of rounding to nearest, relative to the value and to the channel's scale.
RELATIVE = {"float16": 2**-11, "float32": 2**-24, "bfloat16": 2**-8, "int8": 2**-11, "float8_e4m3": 2**-4}
OF_SCALE = {"int8": 0.5, "float8_e4m3": 2**-10}


def computing_dtype(map_dtype: str) -> np.dtype:
    """The dtype that maps are decoded to and fused in: their own, or float16 for the lossy dtypes."""
    return NUMPY["float16" if map_dtype in SCALED else map_dtype]


def buffer_dtype(map_dtype: str) -> np.dtype:
    """The dtype in which a block of maps is collected before `encode`."""
    return NUMPY["float32" if map_dtype in SCALED else map_dtype]


def largest(map_dtype: str) -> float:
    """The largest magnitude of a feature that the dtype can hold."""
    return float(ml_dtypes.finfo(computing_dtype(map_dtype)).max)


def encode(maps: np.ndarray, map_dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Encode one block of maps.

    Args:
        maps: (B, H, W, C) in `buffer_dtype`.
        map_dtype: a member of MAP_DTYPES.

    Returns:
        Codes (B, H, W, C) in the stored dtype (bits, if numpy has no such dtype), and the scales (1, C)
        float32 of a lossy dtype, else None.
    """
    if map_dtype not in SCALED:
        return as_stored(maps, map_dtype), None
    scale = np.abs(maps).max((0, 1, 2)) / np.float32(LARGEST_CODE[map_dtype])
    codes = maps / np.where(scale > 0, scale, 1)
    if map_dtype == "int8":
        np.rint(codes, out=codes)
    np.clip(codes, -LARGEST_CODE[map_dtype], LARGEST_CODE[map_dtype], out=codes)  # against rounding of scale
    return as_stored(codes.astype(NUMPY[map_dtype]), map_dtype), scale[None]


def decode(codes: np.ndarray, map_dtype: str, scale: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
    """Decode stored codes, with the scales (B, C) of a lossy dtype, to maps (B, H, W, C) of `dtype`."""
    values = codes.view(NUMPY[map_dtype])
    if scale is None:
        return values.astype(dtype, copy=False)
    return (values.astype(np.float32) * scale[:, None, None, :]).astype(dtype)


def as_stored(values: np.ndarray, map_dtype: str) -> np.ndarray:
    """Values in a dtype that zarr and HDF5 know: the bits of bfloat16 and float8 as unsigned integers."""
    bits = {"bfloat16": np.uint16, "float8_e4m3": np.uint8}
    return values.view(bits[map_dtype]) if map_dtype in bits else values
