"""FC layers of a contest's heads that may still be chosen, each in a file beside its head's results."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from finetune.training.selection import Layer
from store.storage.atomic import whole_file


def averageable(layer: Any) -> bool:
    """Whether a head is one FC layer, weight (K, C) and bias (K,), all of it finite.

    Logits of such heads on the same features add up to those of another one; all others stay out of averages.
    """
    if not (isinstance(layer, tuple) and len(layer) == 2 and all(map(torch.is_tensor, layer))):
        return False
    weight, bias = layer
    return weight.ndim == 2 and bias.shape == weight.shape[:1] and all(of.isfinite().all() for of in layer)


class KeptLayers:
    """The layers of one store's heads, named by the heads' ids."""

    def __init__(self, folder: Path, number: int):
        self._folder, self._number = folder, number

    def keep(self, head: str, layer: Any) -> bool:
        """Write a head's layer and return True; False if it cannot be averaged."""
        if not averageable(layer):
            return False
        buffer = io.BytesIO()  # a buffer, because torch would write the name of a file into the bytes
        weight, bias = (of.detach().cpu().clone() for of in layer)
        torch.save({"weight": weight, "bias": bias}, buffer)
        with whole_file(self._file(head)) as unfinished:
            unfinished.write_bytes(buffer.getvalue())
        return True

    def read(self, head: str) -> Layer | None:
        """A head's layer, float32 on the CPU; None if its file is not there or cannot be read."""
        try:
            found = torch.load(self._file(head), map_location="cpu", weights_only=True)
            layer = found["weight"], found["bias"]
        except Exception:  # foreign bytes can fail anywhere in torch's unpickler
            return None
        return layer if averageable(layer) else None

    def forget(self, heads: Iterable[str]) -> None:
        """Remove the layers of heads that nobody will ask for again."""
        for head in heads:
            self._file(head).unlink(missing_ok=True)

    def _file(self, head: str) -> Path:
        return self._folder / f"{self._number}-{head}.pt"
