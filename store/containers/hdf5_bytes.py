"""Bytes of an HDF5 file other than rows, changed without HDF5, which a kill would leave half-way."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from store.containers.hdf5_driver import change_file
from store.layout import ArrayLayout


def other_bytes(path: Path, offsets: dict[str, int], layouts: dict[str, ArrayLayout]) -> dict[int, bytes]:
    """All bytes of a file except the rows, by offset, given where the rows of each array begin."""
    places = sorted((start, layouts[name].n_bytes) for name, start in offsets.items())
    ends = [0, *(start + n_bytes for start, n_bytes in places)]
    starts = [*(start for start, _ in places), path.stat().st_size]
    with path.open("rb") as file:
        regions = {}
        for end, start in zip(ends, starts, strict=True):
            file.seek(end)
            regions[end] = file.read(start - end)
    return regions


def differing_bytes(before: dict[int, bytes], after: dict[int, bytes]) -> Iterator[tuple[int, int]]:
    """Offset and new value of every byte that differs between equally long regions."""
    for offset, region in before.items():
        old, new = (np.frombuffer(content, np.uint8) for content in (region, after[offset]))
        for position in np.flatnonzero(old != new):
            yield offset + int(position), int(new[position])


def change_bytes(path: Path, values: Iterable[tuple[int, int]]) -> None:
    """Overwrite single bytes, given by offset, and sync them."""
    values = list(values)
    if values:
        with path.open("rb+", buffering=0) as file:
            for offset, value in values:
                os.pwrite(file.fileno(), bytes([value]), offset)
            os.fsync(file.fileno())


def set_complete(path: Path, value: bool) -> None:
    """Set the attribute of a file that HDF5 may still change."""
    with change_file(path) as file:
        file.attrs.modify("complete", np.bool_(value))
