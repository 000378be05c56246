"""The plan: every random choice of a run, fixed by the seed before the first step.

No draw depends on the FC layer, so a plan is a pure function of labels, CAM masks, options and seed. The
same plan gives the same bits wherever the features live, and any window of it can be drawn on its own.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from finetune.sampling.masks import PositionSets
from finetune.sampling.philox import CounterRNG, below

if TYPE_CHECKING:  # the command line imports this for the methods' names, and must not wait for torch, pandas
    from finetune.mixing.mix import Mix
    from finetune.sampling.head_tail import HeadTail


@dataclass(frozen=True)
class Plan:
    """The batches of a window of T iterations, as rows of the store.

    Attributes:
        row: (T, B) int64 rows of the batches. Mixed samples come last: each replaces the row at its place
            and keeps that row's label.
        mix: how the mixed samples are made; None if there are none.
    """

    row: np.ndarray
    mix: "Mix | None" = None


@dataclass(frozen=True)
class PlanInputs:
    """What a plan is drawn from.

    Attributes:
        label: (N,) int, ascending: each class is one run of rows.
        head_tail: head and tail classes.
        confusing: (K, N_f) confusing classes of each tail class; −1 for head classes, which need none. None
            for methods that do not use them.
        specific, generic: class-specific and class-generic positions of the N maps; None for methods that do
            not use them.
        batch_size: B.
        n_tail: N_t, tail samples in a batch.
        augmented_per_sample: N_a, augmented samples for each of them.
        tail_draw: "samples" draws uniformly among tail samples; "classes" first among tail classes.
        gamma: bounds of the share of class-specific vectors, which is uniform between them.
        draws: the random numbers.
    """

    label: np.ndarray
    head_tail: "HeadTail"
    confusing: np.ndarray | None
    specific: PositionSets | None
    generic: PositionSets | None
    batch_size: int
    n_tail: int
    augmented_per_sample: int
    tail_draw: str
    gamma: tuple[float, float]
    draws: CounterRNG

    @cached_property
    def row_counts(self) -> np.ndarray:
        """(K,) rows of each class."""
        n_classes = len(self.head_tail.head) + len(self.head_tail.tail)
        return np.bincount(self.label, minlength=n_classes)

    def rows_of_classes(self, classes: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """One row of each given class, chosen by a uniform number; same shape as `classes`."""
        first = np.cumsum(self.row_counts) - self.row_counts
        return first[classes] + below(uniform, self.row_counts[classes])

    def any_rows(self, start: int, stop: int, n: int) -> np.ndarray:
        """(T, n) rows drawn uniformly from all."""
        return below(self.draws.uniform("any row", start, stop, n), len(self.label))

    def balanced_rows(self, start: int, stop: int, n: int) -> np.ndarray:
        """(T, n) rows of classes that are drawn uniformly from those with rows."""
        present = np.flatnonzero(self.row_counts)
        classes = present[below(self.draws.uniform("class", start, stop, n), len(present))]
        return self.rows_of_classes(classes, self.draws.uniform("row of class", start, stop, n))

    def tail_rows(self, start: int, stop: int, n: int) -> np.ndarray:
        """(T, n) rows of tail classes, drawn as `tail_draw` says."""
        uniform = self.draws.uniform("tail", start, stop, n)
        if self.tail_draw == "classes":
            classes = self.head_tail.tail[below(uniform, len(self.head_tail.tail))]
            return self.rows_of_classes(classes, self.draws.uniform("row of tail class", start, stop, n))
        return self._tail[below(uniform, len(self._tail))]

    def head_rows(self, start: int, stop: int, n: int) -> np.ndarray:
        """(T, n) rows drawn uniformly from those of head classes."""
        return self._head[below(self.draws.uniform("head row", start, stop, n), len(self._head))]

    @cached_property
    def _head(self) -> np.ndarray:
        return np.flatnonzero(np.isin(self.label, self.head_tail.head))

    @cached_property
    def _tail(self) -> np.ndarray:
        return np.flatnonzero(np.isin(self.label, self.head_tail.tail))
