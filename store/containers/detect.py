"""Which container a path names, and what is there."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from store.arrays.raw import StoredArray
from store.containers.hdf5 import Hdf5Container, LockedStoreError, open_hdf5
from store.containers.hdf5_compressed import PackedHdf5Container
from store.containers.zarr_v3 import ROOT, ZarrContainer, open_zarr
from store.errors import StoreError
from store.layout import ArrayLayout
from store.schema import CHECKSUM, FINISHED, FORMAT, SPLITS
from store.storage.cache import Cache
from store.storage.local import Folder
from store.storage.location import absent, check_exists
from store.storage.mmap_files import MappedFiles
from store.storage.s3 import Bucket
from store.storage.s3_files import CachedFiles, S3Files

Container = ZarrContainer | Hdf5Container | PackedHdf5Container
Check = Callable[[dict[str, Any]], None]  # takes the attributes; may raise
NODES = (ROOT, "classifier", CHECKSUM, FINISHED, *SPLITS)


def container(path: Path, layouts: dict[str, ArrayLayout], state: dict[str, Any]) -> Container:
    """The writer of the container that the suffix names; `state` is what an earlier `create` left, or {}."""
    if path.suffix == ".zarr":
        return ZarrContainer(Folder(path), layouts, state)
    packed = any(layout.codec != "none" for layout in layouts.values())
    return (PackedHdf5Container if packed else Hdf5Container)(path, layouts, state)


def open_container(
    where: Path | Bucket, check: Check = lambda attributes: None, cache: Cache | None = None
) -> tuple[dict[str, Any], dict[str, StoredArray]]:
    """Attributes and arrays of a store: a folder is read as zarr, a file as HDF5.

    Args:
        where: the store.
        check: takes the attributes before any array is read, and may raise.
        cache: of objects from a bucket; None to read them from the bucket each time.

    Raises:
        StoreError: nothing is there, the container's library cannot read it, or the suffix is misleading.
    """
    if isinstance(where, Bucket):
        return _open_bucket(where, check, cache)
    check_exists(where)
    if where.is_dir():
        if where.suffix == ".h5":
            raise StoreError(f"{where}: is a folder, expected an HDF5 file; a zarr store is named *.zarr")
        return open_zarr(Folder(where), MappedFiles(), check)
    if where.suffix == ".zarr":
        raise StoreError(
            f"{where}: is a file, expected the folder of a zarr store; an HDF5 store is named *.h5"
        )
    return open_hdf5(where, check)


def _open_bucket(
    bucket: Bucket, check: Check, cache: Cache | None
) -> tuple[dict[str, Any], dict[str, StoredArray]]:
    try:
        bucket.read(ROOT)
    except FileNotFoundError as error:
        raise absent(bucket) from error
    with bucket.errors():
        files = S3Files(bucket) if cache is None else CachedFiles(bucket, cache)
        return open_zarr(bucket, files, check)


def file_sizes(where: Path | Bucket) -> list[int]:
    """Bytes of every file of a store."""
    if isinstance(where, Path) and where.is_file():
        return [where.stat().st_size]
    return list((where if isinstance(where, Bucket) else Folder(where)).sizes().values())


def foreign_files(names: Iterable[str]) -> str | None:
    """A file that does not belong to a zarr store ("holds thesis.txt"), None if all do."""
    foreign = [name for name in names if not _is_part(name.split("/"))]
    return f"holds {min(foreign)}" if foreign else None


def _is_part(names: list[str]) -> bool:
    metadata = names[-1] == ROOT
    shard = ("c" in names[1:-1] and names[-1].partition(".")[0].isdigit()) or names[-1].startswith(".")
    return names[0] in NODES and (metadata or shard)


def foreign_to_store(path: Path) -> str | None:
    """Why a path is not a store and nothing else ("holds thesis.txt"), finished or not; None if it is."""
    if path.is_dir():
        try:
            attributes = json.loads((path / "zarr.json").read_text())["attributes"]
        except (OSError, ValueError, KeyError, TypeError):
            attributes = {}
        if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
            return f"holds {min(entry.name for entry in path.iterdir())}"
        return foreign_files(Folder(path).sizes())
    try:
        attributes, _ = open_hdf5(path, lambda attributes: None)
    except LockedStoreError:
        raise
    except StoreError:
        return "is a file"
    return None if attributes.get("format") == FORMAT else "is an HDF5 file of something else"


def stamp_of(path: Path | Bucket, patient: bool = False) -> tuple[Any, ...] | None:
    """Identity of a store's root file, which changes with the store; None without one.

    Args:
        path: the store.
        patient: whether to keep trying a bucket that does not answer.
    """
    try:
        if isinstance(path, Bucket):
            return path.stamp(ROOT, patient)
        found = (path / ROOT if path.is_dir() else path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns
