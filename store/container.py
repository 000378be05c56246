"""Which container a path names, and what lies there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from store.atomic import foreign_names
from store.errors import StoreError
from store.extents import StoredArray
from store.hdf5_packed import PackedHdf5Container
from store.hdf5_store import Hdf5Container, open_hdf5
from store.layout import ArrayLayout
from store.schema import CHECKSUM, FINISHED, FORMAT, SPLITS
from store.zarr_store import ZarrContainer, open_zarr

SUFFIXES = (".zarr", ".h5")
Container = ZarrContainer | Hdf5Container | PackedHdf5Container
NODES = ("zarr.json", "classifier", CHECKSUM, FINISHED, *SPLITS)


def container(path: Path, layouts: dict[str, ArrayLayout], state: dict[str, Any]) -> Container:
    """The writer of the container that the path's suffix says; `state` is what its `create` left, if any."""
    if path.suffix == ".zarr":
        return ZarrContainer(path, layouts, state)
    packed = any(layout.codec != "none" for layout in layouts.values())
    return (PackedHdf5Container if packed else Hdf5Container)(path, layouts, state)


def refuse_other_suffix(path: Path) -> None:
    """Raise StoreError for a path that names neither container."""
    if path.suffix not in SUFFIXES:
        raise StoreError(
            f"{path}: unknown container {path.suffix or '(no suffix)'!r}; expected a path ending in "
            f"{' or '.join(SUFFIXES)}"
        )


def open_container(
    path: Path, check: Callable[[dict[str, Any]], None] = lambda attributes: None
) -> tuple[dict[str, Any], dict[str, StoredArray]]:
    """Attributes and arrays of a store, told by what lies there: a folder is zarr, a file HDF5.

    Args:
        path: where it lies.
        check: is shown the attributes before any array is looked at, and may raise.

    Raises:
        StoreError: nothing there, nothing that the container's library knows, or a name that misleads.
    """
    if not path.exists():
        raise StoreError(f"{path}: no such store; `extract --store {path}` makes it")
    if path.is_dir():
        if path.suffix == ".h5":
            raise StoreError(f"{path}: is a folder, expected an HDF5 file; a zarr store is named *.zarr")
        return open_zarr(path, check)
    if path.suffix == ".zarr":
        raise StoreError(
            f"{path}: is a file, expected the folder of a zarr store; an HDF5 store is named *.h5"
        )
    return open_hdf5(path, check)


def foreign_to_store(path: Path) -> str | None:
    """What tells that a path is not a store alone, finished or not; None where it is."""
    if path.is_dir():
        try:
            attributes = json.loads((path / "zarr.json").read_text())["attributes"]
        except (OSError, ValueError, KeyError, TypeError):
            attributes = {}
        if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
            return f"holds {min(entry.name for entry in path.iterdir())}"
        return foreign_names(path, NODES)
    try:
        attributes, _ = open_hdf5(path, lambda attributes: None)
    except StoreError:
        return "is a file"
    return None if attributes.get("format") == FORMAT else "is an HDF5 file of something else"
