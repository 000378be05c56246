"""A folder on a local disk that holds a zarr store: every file whole or absent, and on the disk."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store.atomic import sync_folder, whole_file
from store.files import MappedFiles

Part = bytes | np.ndarray  # of a file's content; arrays are one-dimensional uint8


@dataclass(frozen=True)
class Folder:
    """`Bucket` offers the same, in object storage."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def zarr_store(self) -> Path:
        """What zarr-python opens."""
        return self.path

    def files(self) -> MappedFiles:
        """Where the store's bytes come from."""
        return MappedFiles()

    def file(self, name: str) -> Path:
        """A file of the folder, as an extent's path."""
        return self.path / name

    def sizes(self) -> dict[str, int]:
        """Bytes of every file, by its name in the folder."""
        found = (path for path in self.path.rglob("*") if path.is_file())
        return {path.relative_to(self.path).as_posix(): path.stat().st_size for path in found}

    def read(self, name: str) -> bytes:
        """A small file. Raises FileNotFoundError where it is absent."""
        return (self.path / name).read_bytes()

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Small files, by their names."""
        return {name: self.read(name) for name in names}

    def write(self, name: str, parts: Iterable[Part]) -> None:
        """Write a file, whole or not at all, and leave it on the disk."""
        with whole_file(self.path / name) as unfinished, unfinished.open("wb") as file:
            file.writelines(memoryview(part) for part in parts)

    def errors(self) -> AbstractContextManager:
        """Where errors of the place are told in one line; those of a local disk are clear as they are."""
        return nullcontext()

    def sync(self) -> None:
        """Leave the names of all files on the disk."""
        for folder in {(self.path / name).parent for name in self.sizes()}:
            sync_folder(folder)
