"""The zarr v3 container, in a folder or a bucket: zarr-python writes the metadata, this module the shards.

An uncompressed shard is its rows, as they are in memory, followed by an index of its chunks. zarr-python
would write a shard without syncing it, and decodes whole chunks to read single rows.
"""

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from zarr.buffer.cpu import Buffer
from zarr.storage import MemoryStore

from store.arrays.compressed import PackedArray
from store.arrays.raw import Extent, Files, StoredArray
from store.arrays.shard import index_bytes, raw_shard, rows_of_shard, shard_parts
from store.containers.zarr_metadata import FILE, array_layout, array_metadata, group_metadata
from store.errors import StoreError
from store.layout import ArrayLayout
from store.storage.local import Folder
from store.storage.s3 import Bucket

Place = Folder | Bucket
ROOT = FILE
MOST_SHARDS = 1_000_000  # of one array, 32 TiB: more are a sign of damage
# What zarr raises for bad metadata.
DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError)


class ZarrContainer:
    """A zarr store that is being written; its state is empty."""

    def __init__(self, place: Place, layouts: dict[str, ArrayLayout], state: dict[str, Any]):
        self.place, self.layouts, self.state = place, layouts, state

    def create(self, attributes: dict[str, Any]) -> None:
        """Create groups, and arrays without shards; the root first, since it marks the store as ours."""
        of_groups = {above for name in self.layouts for above in _groups_above(name)}
        files = dict.fromkeys((f"{name}/{ROOT}" for name in sorted(of_groups)), group_metadata({}))
        files |= {f"{name}/{ROOT}": array_metadata(layout) for name, layout in self.layouts.items()}
        self.write_attributes(attributes)
        self.place.write_all(files)

    def prepare_resume(self, attributes: dict[str, Any]) -> None:
        """Write the metadata again before resuming: not synced until the end, they may be lost."""
        self.create(attributes)

    def write_block(self, name: str, index: int, rows: np.ndarray) -> None:
        """Write one shard, whole or not at all, and sync it."""
        layout = self.layouts[name]
        self.place.write(_shard(name, layout, index), shard_parts(layout, rows))

    def amend(self, was: dict[str, Any], now: dict[str, Any]) -> None:
        """Nothing: attributes of any length can be written."""

    def write_attributes(self, attributes: dict[str, Any]) -> None:
        """Write amended attributes."""
        self.place.write_all({ROOT: group_metadata(attributes | {"complete": False})})

    def read_block(self, name: str, index: int) -> np.ndarray:
        """The rows of a written block. Raises ValueError or OSError if it is damaged or gone."""
        layout = self.layouts[name]
        start, stop = layout.block(index)
        return rows_of_shard(layout, self.place.read(_shard(name, layout, index)), stop - start)

    def holds(self, name: str, index: int) -> bool:
        """Whether a block is there in full size: a power cut may leave its record without it."""
        layout = self.layouts[name]
        size = self._found.get(_shard(name, layout, index), 0)
        if layout.codec != "none":
            return size > index_bytes(layout)
        start, stop = layout.block(index)
        return size == raw_shard(layout, stop - start)[0]

    @cached_property
    def _found(self) -> dict[str, int]:
        return self.place.sizes()

    def finish(self) -> None:
        """Sync the metadata and all names, then set `complete`."""
        self.place.sync()
        content = json.loads(self.place.read(ROOT))
        content["attributes"]["complete"] = True
        self.place.write(ROOT, [json.dumps(content, indent=2).encode()])


def _groups_above(name: str) -> Iterator[str]:
    """Every group between the root and an array."""
    while name := name.rpartition("/")[0]:
        yield name


def _shard(name: str, layout: ArrayLayout, index: int) -> str:
    return "/".join([name, "c", str(index), *"0" * (len(layout.shape) - 1)])


def open_zarr(
    place: Place, files: Files, check: Callable[[dict[str, Any]], None]
) -> tuple[dict[str, Any], dict[str, StoredArray]]:
    """Attributes and arrays of a zarr store; no rows are read.

    Args:
        place: where the store is.
        files: what its rows are read from.
        check: takes the attributes before any array is read, and may raise.

    Raises:
        StoreError: zarr cannot read the metadata, or the layout is not one of ours.
    """
    metadata = place.read_all(name for name in place.sizes() if name.rpartition("/")[2] == ROOT)
    try:
        root = zarr.open_group(_in_memory(metadata), mode="r", zarr_format=3)
    except DAMAGED as error:
        raise StoreError(f"{place}: not a zarr v3 store; expected one written by `extract`") from error
    check(dict(root.attrs))
    found = (name for name, content in metadata.items() if name != ROOT and not _is_group(content))
    names = sorted(name.removesuffix(f"/{ROOT}") for name in found)
    layouts = {name: _layout(metadata[f"{name}/{ROOT}"], place, name) for name in names}
    return dict(root.attrs), {name: _open_array(layouts[name], place, name, files) for name in names}


def _in_memory(metadata: dict[str, bytes]) -> MemoryStore:
    """All metadata, fetched at once: zarr-python would fetch them one after the other."""
    return MemoryStore({name: Buffer.from_bytes(content) for name, content in metadata.items()})


def _is_group(metadata: bytes) -> bool:
    try:
        return json.loads(metadata).get("node_type") == "group"
    except (ValueError, AttributeError):
        return False  # opening it as an array names it


def _open_array(layout: ArrayLayout, place: Place, name: str, files: Files) -> StoredArray:
    blocks = range(layout.n_blocks)
    paths = [place.file(_shard(name, layout, index)) for index in blocks]
    dtype = np.dtype(layout.dtype)
    if layout.codec == "none":
        of_size = {stop - start: raw_shard(layout, stop - start) for start, stop in map(layout.block, blocks)}
        extents = [
            Extent(path, 0, start, stop, *of_size[stop - start])
            for path, (start, stop) in zip(paths, map(layout.block, blocks), strict=True)
        ]
        return StoredArray(name, layout.shape, dtype, extents, files)
    size = index_bytes(layout)
    extents = [Extent(path, 0, *layout.block(i), None, index_bytes=size) for i, path in enumerate(paths)]
    return PackedArray(name, layout.shape, dtype, extents, files, (layout.chunk_rows, layout.codec))


def _layout(metadata: bytes, place: Place, name: str) -> ArrayLayout:
    try:
        layout = array_layout(metadata)
    except DAMAGED as error:
        raise StoreError(
            f"{place}: metadata of {name} are damaged ({error}); extract again with --overwrite"
        ) from error
    if layout is None:
        raise StoreError(f"{place}: {name} has another layout than `extract` writes; extract again")
    if layout.n_blocks > MOST_SHARDS:
        raise StoreError(
            f"{place}: metadata of {name} are damaged ({layout.n_blocks:,} shards); extract again"
        )
    return layout
