"""The HDF5 container: h5py writes the metadata, this module writes and finds the rows.

The file is laid out in full before the first row: every dataset is contiguous and has its place. After that
only rows change, and at the end one attribute, `complete`, whose bytes are known beforehand. So HDF5's own
structures, which a killed h5py leaves unreadable, are never touched again.

The structures are those of HDF5 1.10, which carry checksums, and strings have a fixed length: in older
structures, and in the heap of variable-length strings, one flipped bit can send HDF5 into an endless loop.
"""

import errno
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from store.arrays.codecs import LZ4_LEVEL, ZSTD_LEVEL
from store.arrays.compressed import PackedArray
from store.arrays.raw import Extent, Files, StoredArray
from store.containers.hdf5_bytes import change_bytes, differing_bytes, other_bytes, set_complete
from store.containers.hdf5_driver import create_file
from store.errors import StoreError
from store.layout import ArrayLayout
from store.storage.mmap_files import MappedFiles

FILTERS = {"zstd": 32015, "lz4": 32001}  # registered with the HDF Group: Zstandard, Blosc
BLOSC_VERSIONS = (2, 2)  # of filter and format
BLOSC_BITSHUFFLE, BLOSC_LZ4 = 2, 1
LOCK_REFUSED = re.compile(r"unable to lock file, errno = (\d+)")  # in HDF5's error message


class LockedStoreError(StoreError):
    """An HDF5 file that another program is writing, or whose file system has no locks."""


class Hdf5Container:
    """An HDF5 store that is being written.

    Attributes:
        state: the offset of each array's rows, and the bytes that setting `complete` changes (JSON). `create`
            finds them; after that HDF5 is not used.
    """

    def __init__(self, path: Path, layouts: dict[str, ArrayLayout], state: dict[str, Any]):
        self.path, self.layouts, self.state = path, layouts, state

    def create(self, attributes: dict[str, Any]) -> None:
        """Lay out the file: attributes, and space for every row.

        Under a temporary name, because `complete` is set and reset to find its bytes.
        """
        temporary = self._temporary
        self._lay_out(temporary, attributes)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, self.path)

    @property
    def _temporary(self) -> Path:
        return self.path.with_name(f"{self.path.name}.assembling")

    def _lay_out(self, temporary: Path, attributes: dict[str, Any]) -> dict[int, bytes]:
        """Lay out a file; the state describes it from now on. Returns all of its bytes but rows."""
        with create_file(temporary) as (file, _):
            for name, value in (attributes | {"complete": False}).items():
                file.attrs[name] = stored_attribute(value)
            for name, layout in self.layouts.items():
                create_dataset(file, name, layout)
        offsets = self._find_offsets(temporary)
        unfinished = other_bytes(temporary, offsets, self.layouts)
        set_complete(temporary, True)
        complete = other_bytes(temporary, offsets, self.layouts)
        set_complete(temporary, False)
        if (
            other_bytes(temporary, offsets, self.layouts) != unfinished
            or not complete.keys() == unfinished.keys()
        ):
            raise StoreError(
                f"{self.path}: this version of HDF5 does not set an attribute in place; use .zarr"
            )
        self.state |= {"offsets": offsets, "patch": list(differing_bytes(unfinished, complete))}
        return unfinished

    def amend(self, was: dict[str, Any], now: dict[str, Any]) -> None:
        """Prepare other attributes, which must not be longer; `write_attributes` writes them.

        Another file is laid out with them, padded to the same length, so that its rows are in the same places
        and its other bytes are those to write. Neither can a kill break the file, then, nor HDF5 be needed.

        Raises:
            StoreError: this version of HDF5 lays out the two files in different ways.
        """
        stored = {name: stored_attribute(value) for name, value in was.items()}
        texts = {name: value.decode() for name, value in stored.items() if isinstance(value, bytes)}
        sizes = self.state.setdefault("text bytes", {name: len(text) for name, text in texts.items()})
        padded = {
            name: stored_attribute(value).decode().ljust(sizes[name]) if name in sizes else value
            for name, value in now.items()
        }
        offsets = self.state["offsets"]
        wanted = self._lay_out(self._temporary, padded)
        self._temporary.unlink()
        found = other_bytes(self.path, offsets, self.layouts)
        if self.state["offsets"] != offsets or [*map(len, found.values())] != [*map(len, wanted.values())]:
            raise StoreError(
                f"{self.path}: this version of HDF5 does not change attributes in place; use .zarr"
            )
        self.state |= {"amended": list(differing_bytes(found, wanted))}

    def write_block(self, name: str, index: int, rows: np.ndarray) -> None:
        """Write one block of rows in its place, and sync it."""
        layout = self.layouts[name]
        content = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
        self._write(self.state["offsets"][name] + layout.block(index)[0] * layout.row_bytes, content)

    def read_block(self, name: str, index: int) -> np.ndarray:
        """The rows of a written block. Raises OSError if the file is gone."""
        layout = self.layouts[name]
        start, stop = layout.block(index)
        shape = (stop - start, *layout.shape[1:])
        offset = self.state["offsets"][name] + start * layout.row_bytes
        return np.fromfile(self.path, layout.dtype, math.prod(shape), offset=offset).reshape(shape)

    def prepare_resume(self, attributes: dict[str, Any]) -> None:
        """Write amended attributes; all else was laid out and synced before begun.json was written."""
        self.write_attributes(attributes)

    def write_attributes(self, attributes: dict[str, Any]) -> None:
        """Write the attributes that `amend` prepared."""
        change_bytes(self.path, self.state.get("amended", []))

    def holds(self, name: str, index: int) -> bool:
        """True: the file has space for every block, and a block is synced before it is recorded.

        Raises:
            StoreError: the file is gone.
        """
        if not self.path.exists():
            raise StoreError(f"{self.path}: is missing; pass --overwrite to start over")
        return True

    def finish(self) -> None:
        """Set `complete`, by overwriting its bytes."""
        change_bytes(self.path, self.state["patch"])

    def _write(self, offset: int, content: np.ndarray | bytes) -> None:
        rest = memoryview(content)
        with self.path.open("rb+", buffering=0) as file:
            file.seek(offset)
            while len(rest):
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())

    def _find_offsets(self, path: Path) -> dict[str, int]:
        with h5py.File(path, "r") as file:
            return {name: file[name].id.get_offset() for name in self.layouts}


def _create_group(file: h5py.File, name: str) -> h5py.h5g.GroupID:
    if name in file:
        return file[name].id
    above, _, leaf = name.rpartition("/")
    properties = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    properties.set_obj_track_times(False)
    return h5py.h5g.create(_create_group(file, above or "/"), leaf.encode(), gcpl=properties)


def create_dataset(file: h5py.File, name: str, layout: ArrayLayout) -> None:
    """A dataset without rows: contiguous and with its space, or, compressed, in chunks written later."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if layout.codec == "none":
        properties.set_layout(h5py.h5d.CONTIGUOUS)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    else:
        properties.set_chunk((layout.chunk_rows, *layout.shape[1:]))
        # Optional, so that writing does not need the plugin: we compress ourselves.
        properties.set_filter(FILTERS[layout.codec], h5py.h5z.FLAG_OPTIONAL, _filter_options(layout))
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    group, _, leaf = name.rpartition("/")
    h5py.h5d.create(
        _create_group(file, group or "/"),
        leaf.encode(),
        h5py.h5t.py_create(np.dtype(layout.dtype)),
        h5py.h5s.create_simple(layout.shape),
        properties,
    )


def _filter_options(layout: ArrayLayout) -> tuple[int, ...]:
    if layout.codec == "zstd":
        return (ZSTD_LEVEL,)
    itemsize, chunk_bytes = np.dtype(layout.dtype).itemsize, layout.chunk_rows * layout.row_bytes
    return (*BLOSC_VERSIONS, itemsize, chunk_bytes, LZ4_LEVEL, BLOSC_BITSHUFFLE, BLOSC_LZ4)


def open_hdf5(
    path: Path, check: Callable[[dict[str, Any]], None]
) -> tuple[dict[str, Any], dict[str, StoredArray]]:
    """Attributes and arrays of an HDF5 store; no rows are read.

    Raises:
        StoreError: HDF5 cannot read the file, or its layout is not one of ours.
    """
    try:
        with h5py.File(path, "r") as file:
            attributes = {str(name): _attribute(value) for name, value in file.attrs.items()}
            check(attributes)
            datasets: dict[str, h5py.Dataset] = {}
            file.visititems(
                lambda name, node: datasets.update({str(name): node}) if _is_dataset(node) else None
            )
            files = MappedFiles()
            return attributes, {name: _open_dataset(path, name, d, files) for name, d in datasets.items()}
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        if isinstance(error, StoreError):
            raise
        if refused := LOCK_REFUSED.search(str(error)):
            raise LockedStoreError(f"{path}: {_why_not_locked(int(refused[1]))}") from error
        raise StoreError(f"{path}: not an HDF5 store ({error}); expected one written by `extract`") from error


def _why_not_locked(number: int) -> str:
    """The meaning of a lock's system error number, and what to do."""
    if number in (errno.EAGAIN, errno.EWOULDBLOCK):
        return (
            "another program has this HDF5 file open for writing; close it there (a notebook, HDFView, "
            "h5py), then run this again"
        )
    return (
        f"its file system has no locks, which HDF5 asks for ({os.strerror(number)}); set "
        "HDF5_USE_FILE_LOCKING=FALSE in the environment, and run this again"
    )


def _is_dataset(node: h5py.Group | h5py.Dataset) -> bool:
    return isinstance(node, h5py.Dataset)


def stored_attribute(value: Any) -> Any:
    """An attribute as it is stored: lists and objects as JSON, strings of fixed length, in ASCII."""
    if isinstance(value, bool | int):
        return np.bool_(value) if isinstance(value, bool) else value
    return np.bytes_(value if isinstance(value, str) else json.dumps(value))


def _attribute(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str) and value[:1] in ("[", "{"):
        return json.loads(value)
    return value if isinstance(value, str | int | float) else repr(value)  # of a type that we never write


def _open_dataset(path: Path, name: str, dataset: h5py.Dataset, files: Files) -> StoredArray:
    if dataset.chunks:
        return _open_packed(path, name, dataset, files)
    size = path.stat().st_size
    offset = dataset.id.get_offset()
    if offset is None or not dataset.ndim or not dataset.shape[0]:
        raise StoreError(f"{path}: {name} has another layout than `extract` writes; extract again")
    if offset + dataset.nbytes > size:
        raise StoreError(f"{path}: has {size:,} bytes, too few for {name}; extract again")
    extent = Extent(path, offset, 0, dataset.shape[0], size)
    return StoredArray(name, dataset.shape, dataset.dtype, [extent], files)


def _open_packed(path: Path, name: str, dataset: h5py.Dataset, files: Files) -> StoredArray:
    size = path.stat().st_size
    chunk_rows, *rest = dataset.chunks
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    codec = next((codec for codec, number in FILTERS.items() if filters == [number]), None)
    n_chunks = -(-dataset.shape[0] // chunk_rows)
    if codec is None or tuple(rest) != dataset.shape[1:] or dataset.id.get_num_chunks() != n_chunks:
        raise StoreError(f"{path}: {name} has another layout than `extract` writes; extract again")
    index = np.empty((n_chunks, 2), np.int64)

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        index[chunk.chunk_offset[0] // chunk_rows] = chunk.byte_offset, chunk.size

    dataset.id.chunk_iter(note)
    if index.sum(axis=1).max() > size:
        raise StoreError(f"{path}: has {size:,} bytes, too few for {name}; extract again")
    extent = Extent(path, 0, 0, dataset.shape[0], size, index=index)
    return PackedArray(name, dataset.shape, dataset.dtype, [extent], files, (chunk_rows, codec))
