"""The HDF5 container of compressed maps, which cannot be laid out beforehand: blocks first, then one file.

Until all are there, each block is a file of its own, in the form of a zarr shard. The store is then assembled
from them under a temporary name, synced, marked complete, and renamed; if that is interrupted, assembling
starts over. For a moment every row is on disk twice.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from store.arrays.shard import index_bytes, parse_index, rows_of_shard, shard_parts
from store.containers.hdf5 import create_dataset, stored_attribute
from store.containers.hdf5_bytes import set_complete
from store.containers.hdf5_driver import create_file
from store.layout import ArrayLayout
from store.storage.atomic import sync_file, sync_folder
from store.storage.local import Folder


class PackedHdf5Container:
    """A compressed HDF5 store that is being written; its attributes are its state."""

    def __init__(self, path: Path, layouts: dict[str, ArrayLayout], state: dict[str, Any]):
        self.path, self.state = path, state
        self.layouts = {name: _fitting(layout) for name, layout in layouts.items()}
        self._parts = path.with_name(f"{path.name}.parts")

    def create(self, attributes: dict[str, Any]) -> None:
        """Create the folder of the blocks."""
        self._parts.mkdir()
        self.state |= {"attributes": attributes}

    def write_block(self, name: str, index: int, rows: np.ndarray) -> None:
        """Write one block to a file of its own, and sync it."""
        Folder(self._parts).write(_part(name, index), shard_parts(self.layouts[name], rows))

    def prepare_resume(self, attributes: dict[str, Any]) -> None:
        """Nothing: blocks describe themselves, and the rest is written at the end."""

    def amend(self, was: dict[str, Any], now: dict[str, Any]) -> None:
        """Change the attributes that the file will be assembled with."""
        self.state |= {"attributes": now}

    def write_attributes(self, attributes: dict[str, Any]) -> None:
        """Nothing: they are written at the end."""

    def read_block(self, name: str, index: int) -> np.ndarray:
        """The rows of a written block. Raises ValueError or OSError if it is damaged or gone."""
        start, stop = self.layouts[name].block(index)
        content = Folder(self._parts).read(_part(name, index))
        return rows_of_shard(self.layouts[name], content, stop - start)

    def holds(self, name: str, index: int) -> bool:
        """Whether a block is there; once the store is assembled, all are."""
        part = self._parts / _part(name, index)
        return self.path.exists() or (part.exists() and part.stat().st_size > 0)

    def finish(self) -> None:
        """Assemble the store, then set `complete`."""
        if not self.path.exists():
            temporary = self.path.with_name(f"{self.path.name}.assembling")
            self._assemble(temporary)
            sync_file(temporary)
            set_complete(temporary, True)
            sync_file(temporary)
            os.replace(temporary, self.path)
            sync_folder(self.path.parent)
        shutil.rmtree(self._parts)

    def _assemble(self, temporary: Path) -> None:
        with create_file(temporary) as (file, disk):
            for name, value in (self.state["attributes"] | {"complete": False}).items():
                file.attrs[name] = stored_attribute(value)
            for name, layout in self.layouts.items():
                create_dataset(file, name, layout)
                for index in range(layout.n_blocks):
                    self._copy(file[name], layout, index)
                    disk.check()  # rows that the disk did not take would fill memory

    def _copy(self, dataset: h5py.Dataset, layout: ArrayLayout, index: int) -> None:
        """Copy one block into the file."""
        start, stop = layout.block(index)
        content = Folder(self._parts).read(_part(dataset.name[1:], index))
        if layout.codec == "none":
            rows = np.frombuffer(
                content, layout.dtype, (stop - start) * layout.row_bytes // dataset.dtype.itemsize
            )
            dataset[start:stop] = rows.reshape(-1, *layout.shape[1:])
            return
        for i, (offset, size) in enumerate(parse_index(content[-index_bytes(layout) :]).tolist()):
            corner = (start + i * layout.chunk_rows, *(0 for _ in layout.shape[1:]))
            dataset.id.write_direct_chunk(corner, content[offset : offset + size])


def _fitting(layout: ArrayLayout) -> ArrayLayout:
    """The same with chunks no longer than the array: longer ones are an error in HDF5, but not in zarr."""
    return replace(layout, chunk_rows=min(layout.chunk_rows, layout.shape[0]))


def _part(name: str, index: int) -> str:
    return f"{name.replace('/', '.')}/{index}"
