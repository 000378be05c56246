"""FC layers of a contest's heads that may still be chosen, each in a file beside its head's results."""

import io
from collections.abc import Iterable
from pathlib import Path

import torch

from extract.heads.kinds import FullyConnected, Layer, layer_of, saved_parts
from store.storage.atomic import whole_file


def averageable(layer: Layer) -> bool:
    """Whether a head is one FC layer, all of it finite.

    Logits of such heads on the same features add up to those of another one; all others stay out of averages.
    """
    return isinstance(layer, FullyConnected) and all(of.isfinite().all() for of in layer)


class KeptLayers:
    """The layers of one store's heads, named by the heads' ids."""

    def __init__(self, folder: Path, number: int):
        self._folder, self._number = folder, number

    def keep(self, head: str, layer: Layer) -> bool:
        """Write a head's layer and return True; False if it cannot be averaged."""
        if not averageable(layer):
            return False
        buffer = io.BytesIO()  # a buffer, because torch would write the name of a file into the bytes
        torch.save({name: part.clone() for name, part in saved_parts(layer).items()}, buffer)
        with whole_file(self._file(head)) as unfinished:
            unfinished.write_bytes(buffer.getvalue())
        return True

    def read(self, head: str) -> FullyConnected | None:
        """A head's layer, float32 on the CPU; None if its file is not there or cannot be read."""
        try:
            layer = layer_of(torch.load(self._file(head), map_location="cpu", weights_only=True))
        except Exception:  # foreign bytes can fail anywhere in torch's unpickler
            return None
        return layer if averageable(layer) else None

    def forget(self, heads: Iterable[str]) -> None:
        """Remove the layers of heads that nobody will ask for again."""
        for head in heads:
            self._file(head).unlink(missing_ok=True)

    def _file(self, head: str) -> Path:
        return self._folder / f"{self._number}-{head}.pt"
