"""What feature maps are rounded to: three floating-point dtypes, and two lossy ones of a byte a value.

The lossy ones keep a scale for every channel of every block: a value is its code times its scale, and the
largest magnitude of the channel in the block has the largest code. A block's scales need that block alone, so
a store is still written in one pass.
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
# What maps of a dtype may be rounded to again: never to a finer one, which would claim what is not there, and
# lossy codes not at all, for their scales would not come out the same.
MAY_BECOME = {
    "float32": ("float32", "float16", "bfloat16", "int8", "float8_e4m3"),
    "float16": ("float16", "bfloat16", "int8", "float8_e4m3"),
    "bfloat16": ("bfloat16", "int8", "float8_e4m3"),
    "int8": ("int8",),
    "float8_e4m3": ("float8_e4m3",),
}
# Of rounding to nearest: relative to the value, and relative to the channel's scale.
RELATIVE = {"float16": 2**-11, "float32": 2**-24, "bfloat16": 2**-8, "int8": 2**-11, "float8_e4m3": 2**-4}
OF_SCALE = {"int8": 0.5, "float8_e4m3": 2**-10}


def computing_dtype(map_dtype: str) -> np.dtype:
    """What maps are decoded to, and fused in: themselves, or float16 for the lossy dtypes."""
    return NUMPY["float16" if map_dtype in SCALED else map_dtype]


def buffer_dtype(map_dtype: str) -> np.dtype:
    """What a block of maps is gathered in before `encode`."""
    return NUMPY["float32" if map_dtype in SCALED else map_dtype]


def largest(map_dtype: str) -> float:
    """The largest magnitude that a feature may have."""
    return float(ml_dtypes.finfo(computing_dtype(map_dtype)).max)


def encode(maps: np.ndarray, map_dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Codes of one block of maps.

    Args:
        maps: (B, H, W, C) in `buffer_dtype`.
        map_dtype: a member of MAP_DTYPES.

    Returns:
        (B, H, W, C) in the stored dtype (bits, where numpy has no such dtype), and the scales (1, C) float32
        of a lossy dtype.
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
    """Maps (B, H, W, C) of a dtype, from codes as stored and, where there are any, scales (B, C)."""
    values = codes.view(NUMPY[map_dtype])
    if scale is None:
        return values.astype(dtype, copy=False)
    return (values.astype(np.float32) * scale[:, None, None, :]).astype(dtype)


def as_stored(values: np.ndarray, map_dtype: str) -> np.ndarray:
    """Values as zarr and HDF5 know them: the bits of bfloat16 and float8 as unsigned integers."""
    bits = {"bfloat16": np.uint16, "float8_e4m3": np.uint8}
    return values.view(bits[map_dtype]) if map_dtype in bits else values
