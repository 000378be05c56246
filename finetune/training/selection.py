"""The split that choices are made on: validation images, unless the user insists on the test set.

Training images will not do: Phase I has memorised them. The test set is for the end.
"""

from dataclasses import dataclass
from typing import Protocol

from analysis.accuracy import group_accuracies
from extract.heads.kinds import Layer
from finetune.heads.threads import Threads
from finetune.loading.features import HeldOut
from store.errors import UserError


def selection_split(held_out: dict[str, HeldOut], select_on: str) -> HeldOut | None:
    """The split that is evaluated during training; None if the store lacks it."""
    return held_out.get(select_on)


def check_selection(split: HeldOut | None, what: str) -> None:
    """Raise UserError if there is no split to choose on."""
    if split is None:
        raise UserError(
            f"{what}: the store has no val split to choose on; train with --val-per-class (or put images "
            "under val/) and extract again, or choose on folds of the training split (--select-on cv, for "
            "stores of --classifier fit) or on the test set (--select-on test)"
        )


class Judge(Protocol):
    """How heads are scored while they train."""

    def __call__(self, head: int, iteration: int, layer: Layer) -> dict[str, float]:
        """Accuracies in % for a row of metrics.csv, named by split: val_overall, val_many and so on.

        Args:
            head: which of the heads that are trained together.
            iteration: steps that it has taken.
            layer: the head.
        """


@dataclass(frozen=True)
class OnSplit:
    """Scores on a held-out split; none if the store lacks it."""

    split: HeldOut | None
    threads: Threads

    def __call__(self, head: int, iteration: int, layer: Layer) -> dict[str, float]:
        """See `Judge`."""
        return accuracies(self.split, layer, self.threads)


def accuracies(split: HeldOut | None, layer: Layer, threads: Threads) -> dict[str, float]:
    """Accuracies of a head in %, named by split: val_overall, val_balanced_accuracy, val_many and so on."""
    if split is None:
        return {}
    of_split = group_accuracies(split.frame(split.predict(layer, threads)))
    return {f"{split.name}_{name}": value for name, value in of_split.items()}
