"""What heads get right on held-out images, added up over folds, and the accuracies that this comes to.

A rare class has images in some folds only. So right predictions are counted over all folds, and accuracies
computed once, rather than averaged over folds.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from analysis.accuracy import counted_frame, group_accuracies
from analysis.shots import GROUPS
from extract.heads.kinds import Layer
from finetune.cross_validation.fold import Fold
from finetune.cross_validation.options import CV
from finetune.training.selection import Judge


def is_right(fold: Fold, layer: Layer) -> np.ndarray:
    """(M,) bool, which held-out images a head predicts right."""
    held = fold.held_out[CV]
    return held.predict(layer, fold.threads) == held.label


def n_right(fold: Fold, layer: Layer) -> np.ndarray:
    """(K,) held-out images of each class that a head predicts right."""
    return _by_class(fold, is_right(fold, layer))


def _by_class(fold: Fold, right: np.ndarray) -> np.ndarray:
    held = fold.held_out[CV]
    return np.bincount(held.label[right], minlength=len(held.class_names))


def n_scored(frame: pd.DataFrame, parts: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Classes with held-out images, by group of classes: the others are left out of a group's mean.

    Args:
        frame: a per-class frame.
        parts: class indices of head and tail.
    """
    is_scored = frame["n_test"] > 0
    found = {group: int(is_scored[frame["shot_group"] == group].sum()) for group in GROUPS}
    return found | {part: int(is_scored[np.asarray(ids, int)].sum()) for part, ids in parts.items()}


class Scores:
    """Right predictions of heads that are trained together; a `Judge` of heads trained on all rows.

    That judge says what the same configuration scored in the folds after as many steps.
    """

    def __init__(
        self,
        n_heads: int,
        n_held: np.ndarray,
        class_names: list[str],
        class_counts: np.ndarray,
        shot_rule: str,
    ):
        """Start with no fold.

        Args:
            n_heads: heads that are trained together.
            n_held: (K,) images of each class that are held out, over all folds.
            class_names: K names.
            class_counts: (K,) training images.
            shot_rule: a name in SHOT_RULES.
        """
        self._n_held, self._of_classes = n_held, (class_names, class_counts, shot_rule)
        self._right: list[dict[int, np.ndarray]] = [{} for _ in range(n_heads)]
        self._images: list[dict[int, np.ndarray]] = [{} for _ in range(n_heads)]  # by fold, of the last steps
        self._n_folds = 0

    def of_fold(self, fold: Fold) -> Judge:
        """A judge of heads that are trained on the next fold: it counts, and returns no accuracies."""
        number = self._n_folds
        self._n_folds += 1

        def count(head: int, iteration: int, layer: Layer) -> dict[str, float]:
            right = self._images[head][number] = is_right(fold, layer)
            self._right[head][iteration] = self._right[head].get(iteration, 0) + _by_class(fold, right)
            return {}

        return count

    def __call__(self, head: int, iteration: int, layer: Layer) -> dict[str, float]:
        """See `Judge`; nothing for a number of steps that no fold was scored after."""
        if iteration not in self._right[head]:
            return {}
        found = group_accuracies(self.frame(head, iteration))
        return {f"{CV}_{name}": value for name, value in found.items()}

    def images(self, head: int) -> np.ndarray:
        """(N,) bool, which held-out images a head predicted right at last, fold after fold."""
        return np.concatenate([self._images[head][fold] for fold in range(self._n_folds)])

    def frame(self, head: int, iteration: int) -> pd.DataFrame:
        """Per-class frame of a head after some steps; `n_test` counts held-out images."""
        return self.frame_of(self._right[head][iteration])

    def frame_of(self, right: np.ndarray) -> pd.DataFrame:
        """Per-class frame of (K,) right predictions."""
        return counted_frame(self._n_held, right, *self._of_classes)

    def state(self) -> list[dict[int, torch.Tensor]]:
        """The counts so far, for `load_state`."""
        return [{at: torch.from_numpy(of) for at, of in right.items()} for right in self._right]

    def load_state(self, state: list[dict[int, torch.Tensor]]) -> None:
        """Restore what `state` returned."""
        self._right = [{at: of.numpy() for at, of in right.items()} for right in state]
