"""What choices may look at: validation images that Phase I never trained on, unless the user insists.

Features of training images are memorised, and the test set is for the end.
"""

import torch

from analysis.accuracy import group_accuracies
from finetune.heads.threads import Threads
from finetune.loading.features import HeldOut
from store.errors import UserError

Layer = tuple[torch.Tensor, torch.Tensor]  # weight (K, C) and bias (K,)


def selection_split(held_out: dict[str, HeldOut], select_on: str) -> HeldOut | None:
    """The split that accuracies under way are of; None where the store has no validation split."""
    return held_out.get(select_on)


def check_selection(split: HeldOut | None, what: str) -> None:
    """Raise UserError where a choice has nothing to look at."""
    if split is None:
        raise UserError(
            f"{what}: the store has no val split to choose on; train with --val-per-class (or put images "
            "under val/) and extract again, or choose on the test set with --select-on test"
        )


def accuracies(split: HeldOut | None, layer: Layer, threads: Threads) -> dict[str, float]:
    """Accuracies of a head in %, by split: val_overall, val_balanced_accuracy, val_many and so on."""
    if split is None:
        return {}
    of_split = group_accuracies(split.frame(split.predict(*layer, threads)))
    return {f"{split.name}_{name}": value for name, value in of_split.items()}
