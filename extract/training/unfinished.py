"""A network whose training was not finished is used as it is, and said to be unfinished, in every phase."""

import shlex
from pathlib import Path
from typing import Any

from extract.checkpoint import Checkpoint
from store.notes import note
from store.reader import FeatureStore


def note_unfinished(checkpoint: Checkpoint, path: Path) -> None:
    """Say of a checkpoint that Phase I was not finished, also of one with a fine-tuned head.

    Args:
        checkpoint: what is used.
        path: of its file.
    """
    how_far = _how_far(checkpoint.epoch, checkpoint.config.get("epochs"))
    if how_far is None and checkpoint.optimizer is None:
        return
    if checkpoint.finetuned:
        note(
            f"{path}: its head was fine-tuned on a network whose training is not finished ({how_far}); "
            "finish it with `train --resume`, then extract and fine-tune again"
        )
        return
    note(
        f"{path}: is of a training that is not finished ({how_far or f'epoch {checkpoint.epoch} of ?'}), and "
        f"used as it is; `train --resume --out {shlex.quote(str(path.parent))}` finishes it"
    )


def note_extracted_unfinished(store: FeatureStore) -> None:
    """Say of a store that its network's training was not finished, where its provenance tells."""
    try:
        made = store.provenance
        how_far = _how_far(made["checkpoint"]["epoch"], made["training"]["epochs"])
    except (KeyError, TypeError):
        return
    if how_far is not None:
        note(
            f"{store.path}: was extracted with a network whose training is not finished ({how_far}); finish "
            "it with `train --resume`, then extract again"
        )


def _how_far(epoch: Any, epochs: Any) -> str | None:
    """ "epoch 3 of 20"; None where that is all of them, or is not told."""
    told = isinstance(epoch, int) and isinstance(epochs, int)
    return f"epoch {epoch} of {epochs}" if told and epoch < epochs else None
