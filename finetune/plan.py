"""The draw plan: every random choice of a run, fixed by the seed before the first step.

No draw depends on the FC layer, so a plan is a pure function of labels, CAM masks, options and seed. The
same plan gives the same bits wherever the features live.
"""

from dataclasses import dataclass

import numpy as np

from finetune.masks import PositionSets
from finetune.split import HeadTail

CHUNK = 64  # iterations whose vectors are drawn at once; it bounds memory and changes no draw


@dataclass(frozen=True)
class Plan:
    """The batches of T iterations, as rows of the store and vectors of its feature maps.

    Attributes:
        real_row: (T, R) int64 rows used as they are: those of the tail first, then the head's.
        augmented_row: (T, A) int64 tail row that each augmented sample varies, and whose label it has.
        donor_row: (T, A) int64 row that lends the class-generic vectors.
        n_specific: (T, A) int64 vectors drawn from the tail row; the other L − n_specific are the donor's.
        vectors: (T, A, L) int32 or int64, the vectors drawn, each as row · L + position.
    """

    real_row: np.ndarray
    augmented_row: np.ndarray
    donor_row: np.ndarray
    n_specific: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class Drawing:
    """What draws are made from.

    Attributes:
        label: (N,) int, ascending: a class is one run of rows.
        head_tail: head and tail classes.
        confusing: (K, N_f) confusing classes of each class.
        specific, generic: position sets of the N maps. These and `confusing` are None for methods that use
            no maps.
        n_iterations: T.
        n_tail: N_t, tail samples in a batch.
        n_augmented: N_a, augmented samples for each of them.
        tail_draw: "samples" draws uniformly among tail samples, "classes" among tail classes first.
        seed: of every stream.
    """

    label: np.ndarray
    head_tail: HeadTail
    confusing: np.ndarray | None
    specific: PositionSets | None
    generic: PositionSets | None
    n_iterations: int
    n_tail: int
    n_augmented: int
    tail_draw: str
    seed: int

    def stream(self, name: str) -> np.random.Generator:
        """A generator for one kind of draw, so that changing one kind leaves the others as they were."""
        return np.random.default_rng([self.seed, *name.encode()])

    def uniform_rows(self, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One row drawn uniformly from each of the given classes, in their shape."""
        start = np.searchsorted(self.label, classes)
        stop = np.searchsorted(self.label, classes, side="right")
        return rng.integers(start, stop)

    def tail_rows(self, n: int) -> np.ndarray:
        """(T, n) rows of tail classes."""
        rng = self.stream("tail")
        if self.tail_draw == "classes":
            classes = rng.choice(self.head_tail.tail, size=(self.n_iterations, n))
            return self.uniform_rows(classes, rng)
        return rng.choice(self._rows_of(self.head_tail.tail), size=(self.n_iterations, n))

    def head_rows(self, n: int) -> np.ndarray:
        """(T, n) rows drawn uniformly among the samples of head classes."""
        rows = self._rows_of(self.head_tail.head)
        return self.stream("head").choice(rows, size=(self.n_iterations, n))

    def any_rows(self, n: int) -> np.ndarray:
        """(T, n) rows drawn uniformly among all samples."""
        return self.stream("any").integers(len(self.label), size=(self.n_iterations, n))

    def _rows_of(self, classes: np.ndarray) -> np.ndarray:
        return np.flatnonzero(np.isin(self.label, classes))


def real_plan(real_row: np.ndarray) -> Plan:
    """A plan of real samples only."""
    none = np.empty((len(real_row), 0), np.int64)
    return Plan(real_row, none, none, none, np.empty((len(real_row), 0, 1), np.int32))


def augmentation_plan(drawing: Drawing) -> Plan:
    """Algorithm 1: N_t tail samples, N_a augmented ones for each, and as many head samples as of both."""
    tail_row = drawing.tail_rows(drawing.n_tail)
    head_row = drawing.head_rows(drawing.n_tail * (1 + drawing.n_augmented))
    augmented_row = np.repeat(tail_row, drawing.n_augmented, axis=1)
    donor_row = draw_donors(drawing, tail_row)
    n_positions = drawing.specific.order.shape[1]
    n_specific = draw_specific_counts(drawing, augmented_row.shape, n_positions)
    vectors = draw_vectors(drawing, augmented_row, donor_row, n_specific)
    real_row = np.concatenate([tail_row, head_row], axis=1)
    return Plan(real_row, augmented_row, donor_row, n_specific, vectors)


def draw_donors(drawing: Drawing, tail_row: np.ndarray) -> np.ndarray:
    """(T, N_t · N_a) donors of tail rows (T, N_t): one image from each of N_a confusing classes.

    The classes are drawn without replacement; where N_a exceeds N_f they are gone through again.
    """
    rng = drawing.stream("donor")
    confusing = drawing.confusing[drawing.label[tail_row]]  # (T, N_t, N_f)
    shuffled = rng.permuted(confusing, axis=-1)
    turn = np.arange(drawing.n_augmented) % confusing.shape[-1]
    donors = drawing.uniform_rows(shuffled[..., turn], rng)  # (T, N_t, N_a)
    return donors.reshape(len(tail_row), -1)


def draw_specific_counts(drawing: Drawing, shape: tuple[int, ...], n_positions: int) -> np.ndarray:
    """Numbers of class-specific vectors: round(γ · L) with γ ~ U(0, 1), at least 1 and at most L − 1."""
    gamma = drawing.stream("gamma").random(shape)
    return np.clip(np.rint(gamma * n_positions), 1, n_positions - 1).astype(np.int64)


def draw_vectors(
    drawing: Drawing, augmented_row: np.ndarray, donor_row: np.ndarray, n_specific: np.ndarray
) -> np.ndarray:
    """Draw L vectors for every augmented sample, uniformly with replacement (Algorithm 1, lines 15, 16).

    The first n_specific come from the tail row's class-specific positions, the rest from the donor's
    class-generic ones; their order does not matter, since their mean is taken.

    Returns:
        (T, A, L) row · L + position, int32 where that fits.
    """
    n_rows, n_positions = drawing.specific.order.shape
    # One table of sets: row r's specific positions are set r, its generic ones set n_rows + r.
    order = np.concatenate([drawing.specific.order, drawing.generic.order])
    count = np.concatenate([drawing.specific.count, drawing.generic.count])
    dtype = np.int32 if n_rows * n_positions < 2**31 else np.int64
    vectors = np.empty((*augmented_row.shape, n_positions), dtype)
    rng = drawing.stream("vector")
    for start in range(0, len(vectors), CHUNK):
        chunk = slice(start, start + CHUNK)
        from_tail = np.arange(n_positions) < n_specific[chunk, :, None]  # (CHUNK, A, L)
        row = np.where(from_tail, augmented_row[chunk, :, None], donor_row[chunk, :, None])
        sets = np.where(from_tail, row, n_rows + row)
        position = order[sets, (rng.random(sets.shape) * count[sets]).astype(np.int64)]
        vectors[chunk] = row * n_positions + position
    return vectors
