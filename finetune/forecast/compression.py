"""What becomes of feature maps on their way to the disk and back, measured on a sample of them."""

import time
from dataclasses import dataclass

import numpy as np

from store.arrays.codecs import compress, decompress
from store.arrays.dtypes import buffer_dtype, computing_dtype, decode, encode
from store.layout import ArrayLayout

REPEATS = 3  # of which the fastest counts, for it was disturbed least


@dataclass(frozen=True)
class Packing:
    """Of one dtype and codec.

    Attributes:
        share: bytes of compressed chunks over those of the same chunks as they are; 1 without a codec.
        pack_seconds: a row takes to be rounded and compressed, on one thread.
        unpack_seconds: a row takes to be decompressed and decoded, on one thread.
    """

    share: float
    pack_seconds: float
    unpack_seconds: float


def measure_packing(maps: np.ndarray, map_dtype: str, layout: ArrayLayout) -> Packing:
    """Round and compress a sample as the writer does, and undo it as the reader does.

    Args:
        maps: (B, H, W, C) float32, neighbours as they would be in the store. Where they are fewer than a
            chunk holds, they are one chunk.
        map_dtype: a member of MAP_DTYPES.
        layout: of the feature maps.
    """
    chunk_rows = min(layout.chunk_rows, len(maps))
    maps = maps[: len(maps) // chunk_rows * chunk_rows]
    attempts = [_pack_and_unpack(maps, map_dtype, layout.codec, chunk_rows) for _ in range(REPEATS)]
    shares, packing, unpacking = zip(*attempts, strict=True)
    return Packing(shares[0], min(packing) / len(maps), min(unpacking) / len(maps))


def _pack_and_unpack(
    maps: np.ndarray, map_dtype: str, codec: str, chunk_rows: int
) -> tuple[float, float, float]:
    """Share of the bytes that is left, and seconds there and back."""
    started = time.perf_counter()
    with np.errstate(over="ignore"):  # extraction itself refuses maps beyond a dtype's range
        codes, scale = encode(maps.astype(buffer_dtype(map_dtype)), map_dtype)
    chunks = codes.reshape(-1, chunk_rows, *codes.shape[1:])
    packed = [compress(codec, chunk) for chunk in chunks]
    packing = time.perf_counter() - started
    started = time.perf_counter()
    if codec != "none":
        for content, chunk in zip(packed, chunks, strict=True):
            decompress(codec, np.frombuffer(content, np.uint8), chunk)
    scales = None if scale is None else np.repeat(scale, len(maps), axis=0)
    decode(codes, map_dtype, scales, computing_dtype(map_dtype))
    return sum(map(len, packed)) / codes.nbytes, packing, time.perf_counter() - started
