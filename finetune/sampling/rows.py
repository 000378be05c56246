"""How the rows of a batch are drawn: uniformly over images or classes, or half tail, half head."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace

from finetune.sampling.arrays import Array
from finetune.sampling.plan import PlanInputs


@dataclass(frozen=True)
class RowSampling:
    """A way to draw the rows of batches.

    Attributes:
        draw: (T, B) rows of iterations `start` to `stop` (exclusive). The last number is that of rows at the
            end of a batch which may be replaced: they are drawn like a batch of their own.
        prior: (K,) class distribution of the rows that it draws.
        in_halves: whether a batch is half tail, half head.
        options: options that the rows depend on, except the seed.
    """

    draw: Callable[[PlanInputs, int, int, int], Array]
    prior: Callable[[PlanInputs], np.ndarray]
    in_halves: bool = False
    options: tuple[str, ...] = ("batch_size",)


def _uniform(inputs: PlanInputs, start: int, stop: int, n_last: int) -> Array:
    return inputs.any_rows(start, stop, inputs.batch_size)


def _uniform_prior(inputs: PlanInputs) -> np.ndarray:
    return inputs.row_counts / len(inputs.label)


def _balanced(inputs: PlanInputs, start: int, stop: int, n_last: int) -> Array:
    return inputs.balanced_rows(start, stop, inputs.batch_size)


def _balanced_prior(inputs: PlanInputs) -> np.ndarray:
    present = inputs.row_counts > 0
    return present / present.sum()


def _halves(inputs: PlanInputs, start: int, stop: int, n_last: int) -> Array:
    half = inputs.batch_size // 2
    tail, head = inputs.tail_rows(start, stop, half), inputs.head_rows(start, stop, half)
    first_tail, first_head = half - n_last // 2, half - (n_last - n_last // 2)
    parts = [tail[:, :first_tail], head[:, :first_head], tail[:, first_tail:], head[:, first_head:]]
    return array_namespace(tail).concat(parts, axis=1)


def halves_prior(inputs: PlanInputs) -> np.ndarray:
    """Half tail, drawn over samples or classes; half head, drawn over samples."""
    head, tail = inputs.head_tail.head, inputs.head_tail.tail
    prior = inputs.row_counts.astype(np.float64)
    prior[head] /= 2 * prior[head].sum()
    prior[tail] = 0.5 / len(tail) if inputs.tail_draw == "classes" else prior[tail] / (2 * prior[tail].sum())
    return prior


HALVES_OPTIONS = ("batch_size", "head_ratio", "tail_draw")
ROWS = {
    "uniform": RowSampling(_uniform, _uniform_prior),
    "balanced": RowSampling(_balanced, _balanced_prior),
    "halves": RowSampling(_halves, halves_prior, True, HALVES_OPTIONS),
}
