"""zarr's shards: the chunks of one block, one after the other, and an index of them at the end."""

import math
from collections.abc import Iterator

import numpy as np

from store.arrays.checksum import crc32c
from store.arrays.codecs import compress, decompress
from store.layout import ArrayLayout

ABSENT = 2**64 - 1  # offset and size of a chunk beyond the array's end, which the shard does not hold
CHECK_BYTES = 4


def shard_parts(layout: ArrayLayout, rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
    """The parts of the shard of one block of rows, in order."""
    n_chunks = math.ceil(len(rows) / layout.chunk_rows)
    if layout.codec == "none":
        yield np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
        yield bytes(-len(rows) % layout.chunk_rows * layout.row_bytes)
        yield shard_index(layout, np.full(n_chunks, layout.chunk_rows * layout.row_bytes))
        return
    sizes = []
    for chunk in _chunks(layout, rows):
        packed = compress(layout.codec, chunk)
        sizes.append(len(packed))
        yield packed
    yield shard_index(layout, np.array(sizes))


def _chunks(layout: ArrayLayout, rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), layout.chunk_rows):
        chunk = np.ascontiguousarray(rows[start : start + layout.chunk_rows])
        if len(chunk) < layout.chunk_rows:
            chunk = np.concatenate(
                [chunk, np.zeros((layout.chunk_rows - len(chunk), *chunk.shape[1:]), chunk.dtype)]
            )
        yield chunk


def shard_index(layout: ArrayLayout, sizes: np.ndarray) -> bytes:
    """The index of a shard with its first `len(sizes)` chunks: offset and size of each, and a CRC-32C."""
    index = np.full((layout.block_rows // layout.chunk_rows, 2), ABSENT, "<u8")
    index[: len(sizes), 0] = np.cumsum(sizes) - sizes
    index[: len(sizes), 1] = sizes
    content = index.tobytes()
    return content + crc32c(content).to_bytes(CHECK_BYTES, "little")


def raw_shard(layout: ArrayLayout, n_rows: int) -> tuple[int, bytes]:
    """Size and index of a shard of `n_rows` uncompressed rows, known before any row is written."""
    sizes = np.full(math.ceil(n_rows / layout.chunk_rows), layout.chunk_rows * layout.row_bytes)
    index = shard_index(layout, sizes)
    return int(sizes.sum()) + len(index), index


def rows_of_shard(layout: ArrayLayout, content: bytes, n_rows: int) -> np.ndarray:
    """The rows (n_rows, ...) that a shard holds.

    Raises:
        ValueError: the shard is damaged.
    """
    shape = (n_rows, *layout.shape[1:])
    if layout.codec == "none":
        return np.frombuffer(content, layout.dtype, math.prod(shape)).reshape(shape)
    where = parse_index(content[-index_bytes(layout) :])
    decoded = np.empty((len(where) * layout.chunk_rows, *layout.shape[1:]), layout.dtype)
    for i, (offset, size) in enumerate(where.tolist()):
        chunk = decoded[i * layout.chunk_rows : (i + 1) * layout.chunk_rows]
        decompress(layout.codec, np.frombuffer(content, np.uint8, size, offset), chunk)
    return decoded[:n_rows]


def index_bytes(layout: ArrayLayout) -> int:
    """Size of a shard's index."""
    return layout.block_rows // layout.chunk_rows * 16 + CHECK_BYTES


def parse_index(content: bytes) -> np.ndarray:
    """Offset and size (n, 2) int64 of the chunks that a shard holds.

    Raises:
        ValueError: the index is damaged.
    """
    content, check = content[:-CHECK_BYTES], content[-CHECK_BYTES:]
    if crc32c(content).to_bytes(CHECK_BYTES, "little") != check:
        raise ValueError("its index of chunks is damaged")
    index = np.frombuffer(content, "<u8").reshape(-1, 2)
    return index[index[:, 0] != ABSENT].astype(np.int64)
