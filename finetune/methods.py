"""What Phase II can do: feature space augmentation and what it is compared with, in one table."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from finetune.plan import Drawing, Plan, augmentation_plan, real_plan


@dataclass(frozen=True)
class Method:
    """How a method makes its plan.

    Attributes:
        description: of a batch.
        uses_maps: whether it reads feature maps, and takes vectors of confusing classes from them.
        uses_tail: whether it tells tail classes from head classes.
        draw: makes the plan.
    """

    description: str
    uses_maps: bool
    uses_tail: bool
    draw: Callable[[Drawing], Plan]


def _no_aug(drawing: Drawing) -> Plan:
    half = drawing.n_tail * (1 + drawing.n_augmented)
    return real_plan(np.concatenate([drawing.tail_rows(half), drawing.head_rows(half)], axis=1))


def _plain(drawing: Drawing) -> Plan:
    return real_plan(drawing.any_rows(2 * drawing.n_tail * (1 + drawing.n_augmented)))


METHODS = {
    "fsa": Method("feature space augmentation, Algorithm 1 of the paper", True, True, augmentation_plan),
    "no-aug": Method(
        "FSA's batch with real tail samples for the augmented ones (Fig. 9)", False, True, _no_aug
    ),
    "plain": Method("uniform sampling of all training samples", False, False, _plain),
}
