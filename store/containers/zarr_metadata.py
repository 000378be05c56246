"""An array's layout as zarr-python's JSON metadata, and back.

zarr-python takes a millisecond for either, and a store has dozens of arrays. Its answers are cached by
content, so that opening or creating a store again costs next to nothing.
"""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
from zarr.buffer.cpu import Buffer
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.storage import MemoryStore

from store.arrays.codecs import LZ4_LEVEL, ZSTD_LEVEL
from store.layout import ArrayLayout

FILE = "zarr.json"  # of every group and array
REMEMBERED = 4096  # array layouts, about a kilobyte each


def group_metadata(attributes: dict[str, Any]) -> bytes:
    """The metadata of a group of arrays, or of other groups."""
    files: dict[str, Buffer] = {}
    zarr.create_group(store=MemoryStore(files), zarr_format=3, attributes=attributes)
    return files[FILE].to_bytes()


@lru_cache(REMEMBERED)
def array_metadata(layout: ArrayLayout) -> bytes:
    """The metadata of an array."""
    files: dict[str, Buffer] = {}
    inner = layout.shape[1:]
    zarr.create_array(
        store=MemoryStore(files),
        shape=layout.shape,
        dtype=layout.dtype,
        chunks=(layout.chunk_rows, *inner),
        shards=(layout.block_rows, *inner),
        compressors=_compressor(layout),
        fill_value=0,
        zarr_format=3,
    )
    return files[FILE].to_bytes()


@lru_cache(REMEMBERED)
def array_layout(metadata: bytes) -> ArrayLayout | None:
    """The layout that an array's metadata describe; None for one that we never write.

    Raises whatever zarr-python does for metadata that it cannot read, and ValueError for chunks of no rows:
    from 3.4 on zarr-python reads 0 as another length, with a long warning.
    """
    if any(length == 0 for shape in _chunk_shapes(json.loads(metadata)) for length in shape):
        raise ValueError("chunks of no rows")
    array = zarr.open_array(MemoryStore({FILE: Buffer.from_bytes(metadata)}), mode="r", zarr_format=3)
    shape, shards, chunks, codec = array.shape, array.shards, array.chunks, _codec(array)
    sound = shards is not None and shards[1:] == chunks[1:] == shape[1:] and min(shards[0], chunks[0]) > 0
    if codec is None or not sound or not shape[0]:
        return None
    return ArrayLayout(shape, array.dtype.name, chunks[0], shards[0], codec)


def _chunk_shapes(part: Any) -> Iterator[list]:
    """Every chunk shape in an array's metadata: of its shards, and of the chunks in them."""
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for value in inner:
        yield from _chunk_shapes(value)
    if isinstance(part, dict) and isinstance(part.get("chunk_shape"), list):
        yield part["chunk_shape"]


def _compressor(layout: ArrayLayout) -> ZstdCodec | BloscCodec | None:
    if layout.codec == "lz4":
        itemsize = np.dtype(layout.dtype).itemsize
        return BloscCodec(cname="lz4", clevel=LZ4_LEVEL, shuffle="bitshuffle", typesize=itemsize)
    return ZstdCodec(level=ZSTD_LEVEL) if layout.codec == "zstd" else None


def _codec(array: zarr.Array) -> str | None:
    """The codec of a zarr array, None for one that we do not write."""
    match array.compressors:
        case ():
            return "none"
        case (ZstdCodec(),):
            return "zstd"
        case (BloscCodec() as blosc,) if blosc.to_dict()["configuration"]["cname"] == "lz4":
            return "lz4"  # the attribute is a string or an enum, depending on the version
    return None
