"""Flipping bits of a store one at a time: `verify` finds each, or no reader sees a difference."""

from pathlib import Path

import numpy as np
from faults import must
from made_store import contents
from rich.progress import Progress

from store.errors import StoreError
from store.reader import FeatureStore
from store.verify import verify

QUIET = Progress(disable=True)


def faults(path: Path) -> list[str]:
    """The faults that `verify` finds."""
    return [str(fault) for fault in verify(FeatureStore(path), QUIET)]


def everything(path: Path) -> tuple:
    """Everything that a reader of the store can see."""
    store = FeatureStore(path)
    return store.attributes, {name: array.read().tobytes() for name, array in store.arrays.items()}


class FlipCampaign:
    """Flips one bit of a sound store at a time, and flips it back.

    Half of the bits are in random files, however small, and used bytes; half in random bytes.
    """

    def __init__(self, path: Path):
        self.path = path
        self._sound = everything(path)
        self._files = {name: content for name, content in contents(path).items() if content}
        self._names = sorted(self._files)
        self._sizes = np.array([len(self._files[name]) for name in self._names])
        # HDF5 leaves most of a small file empty.
        self._used = {n: np.flatnonzero(np.frombuffer(c, np.uint8)) for n, c in self._files.items()}

    def one(self, generator: np.random.Generator) -> bool:
        """Flip one bit; True if it was found, False if it is harmless.

        Raises:
            ViolationError: it was neither. Any other exception is a bug as well.
        """
        if generator.integers(2):
            name = str(generator.choice(self._names))
            position = int(generator.choice(self._used[name]))
        else:
            name = str(generator.choice(self._names, p=self._sizes / self._sizes.sum()))
            position = int(generator.integers(len(self._files[name])))
        bit = int(generator.integers(8))
        file = self.path / name if self.path.is_dir() else self.path
        sound = self._files[name][position]
        _set_byte(file, position, sound ^ 1 << bit)
        try:
            return self._is_found(f"bit {bit} of byte {position} of {file.name} ({name})")
        finally:
            _set_byte(file, position, sound)

    def _is_found(self, what: str) -> bool:
        try:
            if faults(self.path):
                return True
            must(everything(self.path) == self._sound, f"{what}: neither found nor harmless")
        except StoreError:
            return True
        return False


def _set_byte(file: Path, position: int, value: int) -> None:
    """Change a byte in place, and nothing else."""
    with file.open("rb+", buffering=0) as opened:
        opened.seek(position)
        opened.write(bytes([value]))
