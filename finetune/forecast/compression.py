"""How well and how fast feature maps are encoded, compressed and read back, measured on a sample."""

import time
from dataclasses import dataclass

import numpy as np

from store.arrays.codecs import compress, decompress
from store.arrays.dtypes import buffer_dtype, computing_dtype, decode, encode
from store.layout import ArrayLayout

REPEATS = 3  # the fastest counts, since it was disturbed least


@dataclass(frozen=True)
class Packing:
    """Measurements for one dtype and codec.

    Attributes:
        share: compressed over uncompressed bytes of the same chunks; 1 without a codec.
        pack_seconds: time to round and compress a row, on one thread.
        unpack_seconds: time to decompress and decode a row, on one thread.
    """

    share: float
    pack_seconds: float
    unpack_seconds: float


def measure_packing(maps: np.ndarray, map_dtype: str, layout: ArrayLayout) -> Packing:
    """Round and compress a sample as the writer does, and decode it as the reader does.

    Args:
        maps: (B, H, W, C) float32, in store order; a single chunk if there are fewer than a chunk holds.
        map_dtype: a member of MAP_DTYPES.
        layout: layout of the feature maps.
    """
    chunk_rows = min(layout.chunk_rows, len(maps))
    maps = maps[: len(maps) // chunk_rows * chunk_rows]
    attempts = [_pack_and_unpack(maps, map_dtype, layout.codec, chunk_rows) for _ in range(REPEATS)]
    shares, packing, unpacking = zip(*attempts, strict=True)
    return Packing(shares[0], min(packing) / len(maps), min(unpacking) / len(maps))


def _pack_and_unpack(
    maps: np.ndarray, map_dtype: str, codec: str, chunk_rows: int
) -> tuple[float, float, float]:
    """Share of bytes after compression, and seconds to pack and to unpack."""
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
