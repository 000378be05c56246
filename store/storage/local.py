"""A local folder that holds a zarr store, each of whose files is written whole and synced."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store.storage.atomic import sync_file, sync_folder, whole_file

SYNC_THREADS = 8  # the disk combines syncs of several threads
Part = bytes | np.ndarray  # of a file's content; arrays are one-dimensional uint8


@dataclass(frozen=True)
class Folder:
    """A local folder of files. `Bucket` has the same methods for object storage."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def file(self, name: str) -> Path:
        """The path of a file, for an Extent."""
        return self.path / name

    def sizes(self) -> dict[str, int]:
        """Bytes of every file, by its name in the folder."""
        root = os.path.join(self.path, "")
        files = (os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names)
        return {file[len(root) :]: os.stat(file).st_size for file in files if os.path.isfile(file)}

    def read(self, name: str) -> bytes:
        """A small file. Raises FileNotFoundError if it is absent."""
        return (self.path / name).read_bytes()

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Small files, by name."""
        return {name: self.read(name) for name in names}

    def write(self, name: str, parts: Iterable[Part]) -> None:
        """Write a file, whole or not at all, and sync it."""
        with whole_file(self.path / name) as unfinished, unfinished.open("wb") as file:
            file.writelines(memoryview(part) for part in parts)

    def write_all(self, files: dict[str, bytes]) -> None:
        """Write small files without syncing them; `sync` does."""
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def sync(self) -> None:
        """Sync what `write_all` wrote, and all folders."""
        tree = [(Path(folder), names) for folder, _, names in os.walk(self.path)]
        metadata = [folder / "zarr.json" for folder, names in tree if "zarr.json" in names]
        with ThreadPoolExecutor(SYNC_THREADS) as executor:  # waits for all, and raises the first error
            list(executor.map(sync_file, metadata))
            list(executor.map(sync_folder, [*(folder for folder, _ in tree), self.path.parent]))
