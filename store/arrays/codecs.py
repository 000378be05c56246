"""Compression of chunks: the same bytes in both containers, readable by zarr and HDF5 themselves.

zstd is a plain frame (zarr's `zstd`, HDF5's filter 32015); lz4 comes with a bit shuffle from Blosc (zarr's
`blosc`, HDF5's filter 32001), without which features hardly shrink.
"""

import numpy as np
from numcodecs.blosc import BITSHUFFLE, Blosc
from numcodecs.zstd import Zstd

CODECS = ("none", "zstd", "lz4")
ZSTD_LEVEL = 1
LZ4_LEVEL = 5


def compress(codec: str, chunk: np.ndarray) -> bytes:
    """A chunk's bytes, compressed."""
    if codec == "none":
        return chunk.tobytes()
    if codec == "zstd":
        return Zstd(level=ZSTD_LEVEL).encode(chunk)
    return Blosc("lz4", clevel=LZ4_LEVEL, shuffle=BITSHUFFLE).encode(chunk)


def decompress(codec: str, content: np.ndarray, chunk: np.ndarray) -> None:
    """Decompress the output of `compress` into `chunk`.

    Raises:
        ValueError: the content is damaged, or does not fill the chunk.
    """
    try:
        (Zstd() if codec == "zstd" else Blosc()).decode(content, chunk)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
