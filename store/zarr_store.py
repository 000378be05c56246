"""The zarr v3 container: how arrays are laid out in chunks and shards, created and opened."""

import json
import math
from pathlib import Path

import numpy as np
import zarr

from store.atomic import foreign_names
from store.errors import StoreError
from store.schema import FORMAT, SPLITS

CHUNK_BYTES = 128 * 1024  # one large map, or a run of small ones: small enough for random rows
SHARD_BYTES = 32 * 1024**2  # one file; a shard is always written whole


def row_layout(shape: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """(rows in a chunk, rows in a shard) for an array of `shape`; a shard is a whole number of chunks."""
    row_bytes = max(1, math.prod(shape[1:]) * itemsize)
    chunk = min(max(1, CHUNK_BYTES // row_bytes), max(1, shape[0]))
    chunks = min(max(1, SHARD_BYTES // (chunk * row_bytes)), math.ceil(max(1, shape[0]) / chunk))
    return chunk, chunk * chunks


def create_group(path: Path) -> zarr.Group:
    """A new zarr v3 group in a folder."""
    return zarr.create_group(store=path, zarr_format=3)


def create_array(group: zarr.Group, name: str, shape: tuple[int, ...], dtype: str) -> zarr.Array:
    """An uncompressed, sharded array. Chunks of zeros are written too: an absent one was never written."""
    chunk, shard = row_layout(shape, np.dtype(dtype).itemsize)
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(chunk, *shape[1:]),
        shards=(shard, *shape[1:]),
        compressors=None,
        fill_value=0,
        config={"write_empty_chunks": True},
    )


def is_store(path: Path) -> bool:
    """Whether a folder is a store of ours, finished or not, told by its attributes alone."""
    try:
        return json.loads((path / "zarr.json").read_text())["attributes"]["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def foreign_to_store(path: Path) -> str | None:
    """What tells that a path is not a store alone; None where it is."""
    if path.is_dir() and not is_store(path):
        return f"holds {min(entry.name for entry in path.iterdir())}"
    return foreign_names(path, ("zarr.json", "classifier", *SPLITS))


def damaged_file(array: zarr.Array, folder: Path) -> str | None:
    """The first of an array's files that is missing or of a wrong size, None where all are well.

    The writer leaves no shard out and compresses none, while zarr reads an absent or empty one as zeros.
    """
    if array.shards is None or array.compressors:
        return "not laid out as `extract` does"
    chunk, shard = array.chunks[0], array.shards[0]
    chunk_bytes = chunk * math.prod(array.shape[1:]) * array.dtype.itemsize
    index_bytes = 16 * (shard // chunk) + 4  # offset and size of every chunk, and a CRC-32C
    for number, first in enumerate(range(0, array.shape[0], shard)):
        file = folder.joinpath("c", str(number), *"0" * (array.ndim - 1))
        n_chunks = math.ceil(min(shard, array.shape[0] - first) / chunk)
        expected = n_chunks * chunk_bytes + index_bytes
        if not file.is_file():
            return f"file {file.relative_to(folder)} is missing"
        if file.stat().st_size != expected:
            return f"file {file.relative_to(folder)} has {file.stat().st_size:,} bytes, expected {expected:,}"
    return None


def open_group(path: Path) -> zarr.Group:
    """Open a store's root read-only.

    Raises:
        StoreError: nothing there, or nothing that zarr knows.
    """
    if not path.exists():
        raise StoreError(f"{path}: no such store; `extract --store {path}` makes it")
    try:
        return zarr.open_group(path, mode="r", zarr_format=3)
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{path}: not a zarr v3 store; expected one written by `extract`") from error
