"""Notes on networks whose training stopped early; they are used as they are, in every phase."""

import shlex
from pathlib import Path
from typing import Any

from extract.checkpoints.checkpoint import Checkpoint
from store.notes import note
from store.reader import FeatureStore


def note_stopped_early(checkpoint: Checkpoint, path: Path) -> None:
    """Note that a checkpoint's Phase I stopped early, also if its head was fine-tuned.

    Args:
        checkpoint: the checkpoint in use.
        path: of its file.
    """
    how_far = _how_far(checkpoint.epoch, checkpoint.config.get("epochs"))
    if how_far is None and checkpoint.optimizer is None:
        return
    if checkpoint.finetuned:
        note(
            f"{path}: its head was fine-tuned on a network whose training stopped early ({how_far}); "
            "finish it with `train --resume`, then extract and fine-tune again"
        )
        return
    note(
        f"{path}: its training stopped early ({how_far or f'epoch {checkpoint.epoch} of ?'}), and it is used "
        f"as it is; `train --resume --out {shlex.quote(str(path.parent))}` finishes it"
    )


def note_extracted_early(store: FeatureStore) -> None:
    """Note that the training of a store's network stopped early, if its provenance says so."""
    try:
        made = store.provenance
        how_far = _how_far(made["checkpoint"]["epoch"], made["training"]["epochs"])
    except (KeyError, TypeError):
        return
    if how_far is not None:
        note(
            f"{store.path}: was extracted with a network whose training stopped early ({how_far}); finish "
            "it with `train --resume`, then extract again"
        )


def _how_far(epoch: Any, epochs: Any) -> str | None:
    """ "epoch 3 of 20"; None if training was finished, or if that is not recorded."""
    known = isinstance(epoch, int) and isinstance(epochs, int)
    return f"epoch {epoch} of {epochs}" if known and epoch < epochs else None
