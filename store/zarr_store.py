"""The zarr v3 container: metadata by zarr-python, shards written and found by ourselves.

An uncompressed shard is its rows, as they are in memory, followed by an index of its chunks. zarr-python
would write a shard without syncing it, and decodes whole chunks where single rows are asked for.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from store.atomic import sync_folder, write_json
from store.codecs import LZ4_LEVEL, ZSTD_LEVEL
from store.errors import StoreError
from store.extents import Extent, StoredArray
from store.layout import ArrayLayout
from store.packed import PackedArray
from store.shard import index_bytes, raw_shard, write_shard

MOST_SHARDS = 1_000_000  # of one array, 32 TiB: more are a sign of damage
DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError)  # what zarr raises for bad metadata


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
                compressors=_compressor(layout),
                fill_value=0,
            )

    def write_block(self, name: str, index: int, rows: np.ndarray) -> None:
        """Write one shard, whole or not at all, and leave it on the disk."""
        layout = self.layouts[name]
        write_shard(self.path / _shard(name, layout, index), layout, rows)

    def finish(self) -> None:
        """Sync the folders, then set `complete`."""
        for folder in {path.parent for path in self.path.rglob("*") if path.is_file()}:
            sync_folder(folder)
        root = self.path / "zarr.json"
        content = json.loads(root.read_text())
        content["attributes"]["complete"] = True
        write_json(root, content)


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
        case (BloscCodec() as blosc,) if blosc.cname.value == "lz4":
            return "lz4"
    return None


def _shard(name: str, layout: ArrayLayout, index: int) -> Path:
    return Path(name, "c", str(index), *"0" * (len(layout.shape) - 1))


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
    codec = _codec(array)
    sound = shards is not None and shards[1:] == chunks[1:] == inner and min(shards[0], chunks[0]) > 0
    if codec is None or not sound or not array.shape[0]:
        raise StoreError(f"{path}: {name} is not laid out as `extract` does; extract again")
    layout = ArrayLayout(array.shape, array.dtype.name, chunks[0], shards[0], codec)
    if layout.n_blocks > MOST_SHARDS:
        raise StoreError(
            f"{path}: metadata of {name} are damaged ({layout.n_blocks:,} shards); extract again"
        )
    if codec == "none":
        extents = [_raw_extent(path, name, layout, index) for index in range(layout.n_blocks)]
        return StoredArray(name, array.shape, array.dtype, extents)
    size = index_bytes(layout)
    extents = [
        Extent(path / _shard(name, layout, i), 0, *layout.block(i), None, index_bytes=size)
        for i in range(layout.n_blocks)
    ]
    return PackedArray(name, array.shape, array.dtype, extents, (layout.chunk_rows, codec))


def _raw_extent(path: Path, name: str, layout: ArrayLayout, index: int) -> Extent:
    start, stop = layout.block(index)
    size, tail = raw_shard(layout, stop - start)
    return Extent(path / _shard(name, layout, index), 0, start, stop, size, tail)
