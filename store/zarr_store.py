"""The zarr v3 container: metadata by zarr-python, shards written and found by ourselves.

Nothing is compressed, so a shard is its rows, as they are in memory, followed by an index of its chunks.
zarr-python would write a shard without syncing it, and decodes whole chunks where single rows are asked for.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from store.atomic import sync_folder, whole_file, write_json
from store.checksum import crc32c
from store.errors import StoreError
from store.extents import Extent, StoredArray
from store.layout import ArrayLayout

DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError)  # what zarr raises for bad metadata
ABSENT = 2**64 - 1  # a chunk that a shard does not hold, beyond the array's end


class ZarrContainer:
    """A zarr store that is being written, in a folder of its own; it has no state."""

    def __init__(self, path: Path, layouts: dict[str, ArrayLayout], state: dict[str, Any]):
        self.path, self.layouts, self.state = path, layouts, state

    def create(self, attributes: dict[str, Any]) -> None:
        """Make the tree: groups, and arrays without a shard."""
        root = zarr.create_group(store=self.path, zarr_format=3, attributes=attributes | {"complete": False})
        for name, layout in self.layouts.items():
            inner = layout.shape[1:]
            root.create_array(
                name,
                shape=layout.shape,
                dtype=layout.dtype,
                chunks=(layout.chunk_rows, *inner),
                shards=(layout.block_rows, *inner),
                compressors=None,
                fill_value=0,
            )

    def write_block(self, name: str, index: int, rows: np.ndarray) -> None:
        """Write one shard, whole or not at all, and leave it on the disk."""
        layout = self.layouts[name]
        padding = -len(rows) % layout.chunk_rows * layout.row_bytes
        shard = self.path / _shard(name, layout, index)
        with whole_file(shard) as unfinished, unfinished.open("wb") as file:
            file.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8))
            file.write(bytes(padding))
            file.write(_index(layout, math.ceil(len(rows) / layout.chunk_rows)))

    def finish(self) -> None:
        """Sync the folders, then set `complete`."""
        for folder in {path.parent for path in self.path.rglob("*") if path.is_file()}:
            sync_folder(folder)
        root = self.path / "zarr.json"
        content = json.loads(root.read_text())
        content["attributes"]["complete"] = True
        write_json(root, content)


def _shard(name: str, layout: ArrayLayout, index: int) -> Path:
    return Path(name, "c", str(index), *"0" * (len(layout.shape) - 1))


def _index(layout: ArrayLayout, n_chunks: int) -> bytes:
    """Offset and size of every chunk of a shard that holds its first `n_chunks`, and a CRC-32C."""
    index = np.full((layout.block_rows // layout.chunk_rows, 2), ABSENT, "<u8")
    chunk_bytes = layout.chunk_rows * layout.row_bytes
    index[:n_chunks, 0] = np.arange(n_chunks) * chunk_bytes
    index[:n_chunks, 1] = chunk_bytes
    content = index.tobytes()
    return content + crc32c(content).to_bytes(4, "little")


def open_zarr(path: Path) -> tuple[dict[str, Any], dict[str, StoredArray]]:
    """Attributes and arrays of a zarr store, nothing of their rows read.

    Raises:
        StoreError: nothing there that zarr knows, metadata that it cannot read, or another layout.
    """
    try:
        root = zarr.open_group(path, mode="r", zarr_format=3)
    except DAMAGED as error:
        raise StoreError(f"{path}: not a zarr v3 store; expected one written by `extract`") from error
    names = sorted(
        str(found.parent.relative_to(path))
        for found in path.rglob("zarr.json")
        if _node_type(found) != "group"
    )
    return dict(root.attrs), {name: _open_array(root, path, name) for name in names}


def _node_type(path: Path) -> str | None:
    try:
        return json.loads(path.read_text()).get("node_type")
    except (ValueError, AttributeError):
        return None  # to be named when it is opened


def _open_array(root: zarr.Group, path: Path, name: str) -> StoredArray:
    try:
        array = root[name]
        shards, chunks = array.shards, array.chunks
    except DAMAGED as error:
        raise StoreError(
            f"{path}: metadata of {name} are damaged ({error}); extract again with --overwrite"
        ) from error
    inner = array.shape[1:]
    if array.compressors or shards is None or not (shards[1:] == chunks[1:] == inner) or not array.shape[0]:
        raise StoreError(f"{path}: {name} is not laid out as `extract` does; extract again")
    layout = ArrayLayout(array.shape, array.dtype.name, chunks[0], shards[0])
    extents = []
    for index in range(layout.n_blocks):
        start, stop = layout.block(index)
        n_chunks = math.ceil((stop - start) / layout.chunk_rows)
        tail = _index(layout, n_chunks)
        size = n_chunks * layout.chunk_rows * layout.row_bytes + len(tail)
        extents.append(Extent(path / _shard(name, layout, index), 0, start, stop, size, tail))
    return StoredArray(name, array.shape, array.dtype, extents)
