"""The draw plan: every random choice of a run, fixed by the seed before the first step.

No draw depends on the FC layer, so a plan is a pure function of labels, CAM masks, options and seed. The
same plan gives the same bits wherever the features live, and any window of it can be drawn by itself.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from finetune.sampling.head_tail import HeadTail
from finetune.sampling.masks import PositionSets
from finetune.sampling.philox import CounterRNG, below


@dataclass(frozen=True)
class Plan:
    """The batches of a window of T iterations, as rows of the store and vectors of its feature maps.

    Attributes:
        row: (T, B) int64, rows of a batch: first those used as they are, then for each of the A augmented
            samples the tail row that it varies, and whose label it has.
        donor_row: (T, A) int64 row that lends the class-generic vectors.
        n_specific: (T, A) int64 vectors drawn from the tail row; the other L − n_specific are the donor's.
        vectors: (T, A, L) int32 or int64, the vectors drawn, each as row · L + position.
    """

    row: np.ndarray
    donor_row: np.ndarray
    n_specific: np.ndarray
    vectors: np.ndarray

    @property
    def n_augmented(self) -> int:
        """A, augmented samples of a batch."""
        return self.donor_row.shape[1]

    @property
    def augmented_row(self) -> np.ndarray:
        """(T, A) the tail row that each augmented sample varies."""
        return self.row[:, self.row.shape[1] - self.n_augmented :]


@dataclass(frozen=True)
class PlanInputs:
    """What draws are made from.

    Attributes:
        label: (N,) int, ascending: a class is one run of rows.
        head_tail: head and tail classes.
        confusing: (K, N_f) confusing classes of each tail class; −1 for head classes, which borrow nothing.
        specific, generic: position sets of the N maps. These and `confusing` are None for methods that use
            no maps.
        batch_size: B.
        n_tail: N_t, tail samples in a batch.
        n_augmented: N_a, augmented samples for each of them.
        tail_draw: "samples" draws uniformly among tail samples, "classes" among tail classes first.
        gamma: bounds of the share of class-specific vectors, uniform between them.
        draws: the random numbers.
    """

    label: np.ndarray
    head_tail: HeadTail
    confusing: np.ndarray | None
    specific: PositionSets | None
    generic: PositionSets | None
    batch_size: int
    n_tail: int
    n_augmented: int
    tail_draw: str
    gamma: tuple[float, float]
    draws: CounterRNG

    @cached_property
    def row_counts(self) -> np.ndarray:
        """(K,) rows of each class."""
        n_classes = len(self.head_tail.head) + len(self.head_tail.tail)
        return np.bincount(self.label, minlength=n_classes)

    def rows_of_classes(self, classes: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """One row drawn uniformly from each of the given classes, in their shape."""
        first = np.cumsum(self.row_counts) - self.row_counts
        return first[classes] + below(uniform, self.row_counts[classes])

    def any_rows(self, start: int, stop: int, n: int) -> np.ndarray:
        """(T, n) rows drawn uniformly among all."""
        return below(self.draws.uniform("any row", start, stop, n), len(self.label))

    def balanced_rows(self, start: int, stop: int, n: int) -> np.ndarray:
        """(T, n) rows of classes drawn uniformly among those that have any."""
        present = np.flatnonzero(self.row_counts)
        classes = present[below(self.draws.uniform("class", start, stop, n), len(present))]
        return self.rows_of_classes(classes, self.draws.uniform("row of class", start, stop, n))

    def tail_rows(self, start: int, stop: int, n: int) -> np.ndarray:
        """(T, n) rows of tail classes."""
        uniform = self.draws.uniform("tail", start, stop, n)
        if self.tail_draw == "classes":
            classes = self.head_tail.tail[below(uniform, len(self.head_tail.tail))]
            return self.rows_of_classes(classes, self.draws.uniform("row of tail class", start, stop, n))
        return self._tail[below(uniform, len(self._tail))]

    def head_rows(self, start: int, stop: int, n: int) -> np.ndarray:
        """(T, n) rows drawn uniformly among those of head classes."""
        return self._head[below(self.draws.uniform("head row", start, stop, n), len(self._head))]

    @cached_property
    def _head(self) -> np.ndarray:
        return np.flatnonzero(np.isin(self.label, self.head_tail.head))

    @cached_property
    def _tail(self) -> np.ndarray:
        return np.flatnonzero(np.isin(self.label, self.head_tail.tail))


def real_plan(row: np.ndarray) -> Plan:
    """A plan of real samples only."""
    none = np.empty((len(row), 0), np.int64)
    return Plan(row, none, none, np.empty((len(row), 0, 1), np.int32))


def augmentation_plan(drawing: PlanInputs, start: int, stop: int) -> Plan:
    """Algorithm 1: N_t tail samples, N_a augmented ones for each, and as many head samples as of both."""
    tail_row = drawing.tail_rows(start, stop, drawing.n_tail)
    head_row = drawing.head_rows(start, stop, drawing.n_tail * (1 + drawing.n_augmented))
    augmented_row = np.repeat(tail_row, drawing.n_augmented, axis=1)
    donor_row = draw_donors(drawing, start, stop, tail_row)
    n_specific = draw_specific_counts(drawing, start, stop, augmented_row.shape[1])
    vectors = draw_vectors(drawing, start, stop, augmented_row, donor_row, n_specific)
    return Plan(np.concatenate([tail_row, head_row, augmented_row], axis=1), donor_row, n_specific, vectors)


def draw_donors(drawing: PlanInputs, start: int, stop: int, tail_row: np.ndarray) -> np.ndarray:
    """(T, N_t · N_a) donors of tail rows (T, N_t): one image from each of N_a confusing classes.

    The classes are drawn without replacement; where N_a exceeds N_f they are gone through again.
    """
    confusing = drawing.confusing[drawing.label[tail_row]]  # (T, N_t, N_f)
    keys = drawing.draws.uniform("order of confusing classes", start, stop, *confusing.shape[1:])
    shuffled = np.take_along_axis(confusing, np.argsort(keys, axis=-1, kind="stable"), axis=-1)
    turn = np.arange(drawing.n_augmented) % confusing.shape[-1]
    classes = shuffled[..., turn].reshape(len(tail_row), -1)  # (T, N_t · N_a)
    return drawing.rows_of_classes(classes, drawing.draws.uniform("donor row", start, stop, classes.shape[1]))


def draw_specific_counts(drawing: PlanInputs, start: int, stop: int, n: int) -> np.ndarray:
    """(T, n) numbers of class-specific vectors: round(γ · L), at least 1 and at most L − 1."""
    low, high = drawing.gamma
    n_positions = drawing.specific.order.shape[1]
    gamma = low + (high - low) * drawing.draws.uniform("gamma", start, stop, n)
    return np.clip(np.rint(gamma * n_positions), 1, n_positions - 1).astype(np.int64)


def draw_vectors(
    drawing: PlanInputs,
    start: int,
    stop: int,
    augmented_row: np.ndarray,
    donor_row: np.ndarray,
    n_specific: np.ndarray,
) -> np.ndarray:
    """Draw L vectors for every augmented sample, uniformly with replacement (Algorithm 1, lines 15, 16).

    The first n_specific come from the tail row's class-specific positions, the rest from the donor's
    class-generic ones; their order does not matter, since their mean is taken.

    Returns:
        (T, A, L) row · L + position, int32 where that fits.
    """
    n_rows, n_positions = drawing.specific.order.shape
    dtype = np.int32 if n_rows * n_positions < 2**31 else np.int64
    uniform = drawing.draws.uniform("vector", start, stop, augmented_row.shape[1], n_positions)
    from_tail = np.arange(n_positions) < n_specific[:, :, None]  # (T, A, L)
    row = np.where(from_tail, augmented_row[:, :, None], donor_row[:, :, None])
    count = np.where(
        from_tail,
        drawing.specific.count[augmented_row][..., None],
        drawing.generic.count[donor_row][..., None],
    )
    place = row * n_positions + below(uniform, count)  # in the orders, seen flat
    position = np.where(from_tail, drawing.specific.order.take(place), drawing.generic.order.take(place))
    return (row * n_positions + position).astype(dtype)
