"""The plan: every random choice of a run, fixed by the seed before the first step.

No draw depends on the FC layer, so a plan is a pure function of labels, CAM masks, options and seed. The
same plan gives the same bits wherever the features live, and any window of it can be drawn on its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from finetune.sampling.arrays import Array, on_device
from finetune.sampling.masks import PositionSets
from finetune.sampling.philox import CounterRNG, below

if TYPE_CHECKING:  # the command line imports this for the methods' names, and must not wait for torch, pandas
    import torch

    from finetune.mixing.gaussians import ClassNoise
    from finetune.mixing.mix import Mix
    from finetune.sampling.device_rng import DeviceRNG
    from finetune.sampling.head_tail import HeadTail

COUNTED = (
    "row_counts",
    "first_rows",
    "present_classes",
    "head_set",
    "tail_set",
    "is_tail",
    "replaced",
)  # made from the labels


@dataclass(frozen=True)
class Plan:
    """The batches of a window of T iterations, as rows of the store.

    Attributes:
        row: (T, B) int64 rows of the batches. Mixed samples come last: each replaces the row at its place
            and keeps that row's label.
        mix: how the mixed samples are made; None if there are none.
        n_each: (T,) int, how many of its A places a batch's mix replaces, on the host; None for all.
    """

    row: Array
    mix: "Mix | None" = None
    n_each: np.ndarray | None = None

    @property
    def n_mixed(self) -> int:
        """Mixed samples in all batches."""
        if self.mix is None:
            return 0
        return len(self.row) * self.mix.n_samples if self.n_each is None else int(self.n_each.sum())


@dataclass(frozen=True)
class Mixing:
    """Which rows of a batch are replaced by new samples, and what else a mix may ask for.

    Attributes:
        share: of a batch's places.
        classes: whose rows are replaced: "tail", "all", or "fill" for as many of each class as it has fewer
            than the largest.
        n_swapped: channels that are taken from another row.
        n_channels: C.
        share_quantiles: quantiles of the share of a row in mixup; None for other mixes.
        neighbours: (N, k) classes nearest to each row; None for mixes that do not ask for them.
        of_classes: means and noise of classes, for the same mixes.
    """

    share: float = 1.0
    classes: str = "all"
    n_swapped: int = 0
    n_channels: int = 0
    share_quantiles: Array | None = None
    neighbours: Array | None = None
    of_classes: "ClassNoise | None" = None

    def n_places(self, batch_size: int) -> int:
        """A, places at the end of a batch whose rows may be replaced; one at least."""
        return max(1, round(self.share * batch_size))


@dataclass(frozen=True)
class PlanInputs:
    """What a plan is drawn from: arrays of numpy, or of torch on one device.

    Attributes:
        label: (N,) int, ascending: each class is one run of rows.
        head_tail: head and tail classes.
        confusing: (K, N_f) confusing classes of each tail class; −1 for head classes, which need none. None
            for methods that do not use them.
        specific, generic: class-specific and class-generic positions of the N maps; None for methods that do
            not use them.
        in_place: whether vectors of an earlier layer are replaced in place.
        batch_size: B.
        n_tail: N_t, tail samples in a batch.
        augmented_per_sample: N_a, augmented samples for each of them.
        tail_draw: "samples" draws uniformly among tail samples; "classes" first among tail classes.
        gamma: bounds of the share of class-specific vectors, which is uniform between them.
        draws: the random numbers.
        mixing: which rows are replaced by new samples; Algorithm 1 has its own rule.
    """

    label: Array
    head_tail: "HeadTail"
    confusing: Array | None
    specific: PositionSets | None
    generic: PositionSets | None
    batch_size: int
    n_tail: int
    augmented_per_sample: int
    tail_draw: str
    gamma: tuple[float, float]
    draws: "CounterRNG | DeviceRNG"
    mixing: Mixing = Mixing()
    in_place: bool = False

    def on(self, device: "torch.device") -> "PlanInputs":
        """The same inputs on a device, to draw the same plans there."""
        from finetune.sampling.device_rng import DeviceRNG

        moved = replace(on_device(self, device), draws=DeviceRNG(self.draws.seed, device))
        for name in COUNTED:
            moved.__dict__[name] = on_device(getattr(self, name), device)
        return moved

    @property
    def numbers_per_iteration(self) -> int:
        """A bound on the random numbers of one kind that an iteration takes."""
        of_row = [
            part.shape[1]
            for part in (self.specific and self.specific.order, self.confusing, self.mixing.neighbours)
            if part is not None
        ]
        return max(self.batch_size * max([1, *of_row]), self.mixing.n_channels)

    def rows_of_classes(self, classes: Array, uniform: Array) -> Array:
        """One row of each given class, chosen by a uniform number; same shape as `classes`."""
        return self.first_rows[classes] + below(uniform, self.row_counts[classes])

    def any_rows(self, start: int, stop: int, n: int) -> Array:
        """(T, n) rows drawn uniformly from all."""
        return below(self.draws.uniform("any row", start, stop, n), len(self.label))

    def balanced_rows(self, start: int, stop: int, n: int) -> Array:
        """(T, n) rows of classes that are drawn uniformly from those with rows."""
        present = self.present_classes
        classes = present[below(self.draws.uniform("class", start, stop, n), len(present))]
        return self.rows_of_classes(classes, self.draws.uniform("row of class", start, stop, n))

    def tail_rows(self, start: int, stop: int, n: int) -> Array:
        """(T, n) rows of tail classes, drawn as `tail_draw` says."""
        uniform = self.draws.uniform("tail", start, stop, n)
        if self.tail_draw == "classes":
            classes = self.head_tail.tail[below(uniform, len(self.head_tail.tail))]
            return self.rows_of_classes(classes, self.draws.uniform("row of tail class", start, stop, n))
        return self.tail_set[below(uniform, len(self.tail_set))]

    def head_rows(self, start: int, stop: int, n: int) -> Array:
        """(T, n) rows drawn uniformly from those of head classes."""
        return self.head_set[below(self.draws.uniform("head row", start, stop, n), len(self.head_set))]

    @cached_property
    def row_counts(self) -> Array:
        """(K,) rows of each class."""
        n_classes = len(self.head_tail.head) + len(self.head_tail.tail)
        return np.bincount(self.label, minlength=n_classes)

    @cached_property
    def first_rows(self) -> Array:
        """(K,) the first row of each class."""
        return np.cumsum(self.row_counts) - self.row_counts

    @cached_property
    def present_classes(self) -> Array:
        """Classes with rows, ascending."""
        return np.flatnonzero(self.row_counts)

    @cached_property
    def is_tail(self) -> Array:
        """(K,) bool, whether a class is one of the tail."""
        return np.isin(np.arange(len(self.row_counts)), self.head_tail.tail)

    @cached_property
    def replaced(self) -> Array:
        """(K,) float64 how likely a row of each class is replaced where a mix may replace it."""
        if self.mixing.classes == "fill":
            return 1 - self.row_counts / self.row_counts.max()
        return (self.is_tail if self.mixing.classes == "tail" else np.ones(len(self.row_counts))) * 1.0

    @cached_property
    def head_set(self) -> Array:
        """Rows of head classes, ascending."""
        return np.flatnonzero(np.isin(self.label, self.head_tail.head))

    @cached_property
    def tail_set(self) -> Array:
        """Rows of tail classes, ascending."""
        return np.flatnonzero(np.isin(self.label, self.head_tail.tail))


Draw = Callable[[PlanInputs, int, int], Plan]  # of iterations from a number to another (exclusive)


def drawn_anywhere(draw: Draw) -> Draw:
    """Mark a draw that takes tensors on a device as well as arrays of numpy.

    On a GPU it is then called with inputs that are there, for many windows at once, so its mix is a dataclass
    whose arrays have an entry for each iteration. Any other draw is called on the host.
    """
    draw.anywhere = True
    return draw
