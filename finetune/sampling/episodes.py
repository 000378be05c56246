"""Episodes: batches in which some head classes play rare ones (Gidaris & Komodakis 2018, sec. 3.2).

A batch begins with a few rows of each class that plays a rare one, from which its weight is generated; the
others are classified: half of them of these classes, half of the other head classes.
"""

from dataclasses import dataclass

import numpy as np

from finetune.sampling.plan import Plan, PlanInputs, below
from store.errors import UserError

RARE_CLASSES, SHOTS = 5, 5  # of an episode, as its authors have them


@dataclass(frozen=True)
class EpisodeShape:
    """What a batch is made of.

    Attributes:
        n_classes: classes that play rare ones.
        n_shots: rows that the weight of each is generated from.
    """

    n_classes: int
    n_shots: int = SHOTS

    @property
    def n_support(self) -> int:
        """Rows that weights are generated from, at the beginning of a batch."""
        return self.n_classes * self.n_shots


def episode_shape(n_head: int, batch_size: int) -> EpisodeShape:
    """The episodes of `n_head` head classes with rows; half of them at most play rare ones.

    Raises:
        UserError: there are too few classes, or too few rows in a batch.
    """
    if n_head < 2:
        raise UserError(
            f"--method fslwf: head classes play rare ones in training, and there is {n_head} with rows; "
            "raise --head-ratio"
        )
    shape = EpisodeShape(min(RARE_CLASSES, n_head // 2))
    least = shape.n_support + 2
    if batch_size < least:
        raise UserError(
            f"--batch-size {batch_size}: an episode of --method fslwf has {shape.n_support} rows to generate "
            f"weights from, and others to classify; raise it to {least} or more"
        )
    return shape


def head_with_rows(inputs: PlanInputs) -> np.ndarray:
    """(K_h,) head classes that have rows."""
    return inputs.head_tail.head[inputs.row_counts[inputs.head_tail.head] > 0]


def episodes(inputs: PlanInputs, start: int, stop: int) -> Plan:
    """The plan of iterations `start` to `stop` (exclusive)."""
    head, size = head_with_rows(inputs), inputs.batch_size
    shape = episode_shape(len(head), size)
    keys = inputs.draws.uniform("order of head classes", start, stop, len(head))
    order = head[keys.argsort(axis=1, kind="stable")]
    rare, common = order[:, : shape.n_classes], order[:, shape.n_classes :]
    n_others = size - shape.n_support
    n_rare = n_others // 2
    chosen = inputs.draws.uniform("episode class", start, stop, n_others)
    of_rare = np.take_along_axis(rare, below(chosen[:, :n_rare], rare.shape[1]), 1)
    of_common = np.take_along_axis(common, below(chosen[:, n_rare:], common.shape[1]), 1)
    classes = np.concatenate([rare.repeat(shape.n_shots, axis=1), of_rare, of_common], axis=1)
    return Plan(inputs.rows_of_classes(classes, inputs.draws.uniform("episode row", start, stop, size)))


def prior_of_episodes(inputs: PlanInputs) -> np.ndarray:
    """(K,) head classes with rows, uniformly."""
    prior = np.zeros(len(inputs.row_counts))
    prior[head_with_rows(inputs)] = 1
    return prior / prior.sum()
