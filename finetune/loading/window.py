"""A window: the batches of a run of consecutive iterations, put together at once."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from finetune.heads.cuda_graph import RECORDING
from finetune.heads.stacked import padded_channels
from finetune.loading.features import Features
from finetune.loading.residency import Maps
from finetune.sampling.plan import Plan, PlanInputs


@dataclass(frozen=True)
class Window:
    """Batches ready for their steps.

    Attributes:
        start: iteration of the first, counted from 0.
        pooled: (T, B, Cp) float32 padded features: real rows, then augmented ones.
        label: (T, B) int64.
        plan: what they were made from.
        n_empty: augmented samples whose class-specific, and whose class-generic set was empty.
    """

    start: int
    pooled: torch.Tensor
    label: torch.Tensor
    plan: Plan
    n_empty: np.ndarray


class WindowMaker:
    """Makes any window of a run.

    Attributes:
        drawing: what the plan is drawn from.
    """

    def __init__(
        self,
        draw: Callable[[PlanInputs, int, int], Plan],
        drawing: PlanInputs,
        features: Features,
        maps: Maps | None,
    ):
        self._draw, self._features, self._maps = draw, features, maps
        self.drawing = drawing

    def make(self, bounds: tuple[int, int]) -> Window:
        """The window of the iterations from bounds[0] to before bounds[1].

        Raises:
            StoreError: feature maps cannot be read.
        """
        plan = self._draw(self.drawing, *bounds)
        with RECORDING:
            return assemble(plan, self._features, self._maps, bounds[0], self._count_empty(plan))

    def _count_empty(self, plan: Plan) -> np.ndarray:
        if not plan.n_augmented:
            return np.zeros(2, np.int64)
        specific, generic = self.drawing.specific.was_empty, self.drawing.generic.was_empty
        return np.array([specific[plan.augmented_row].sum(), generic[plan.donor_row].sum()])


def assemble(plan: Plan, features: Features, maps: Maps | None, start: int, n_empty: np.ndarray) -> Window:
    """Gather the rows of a plan, and put the augmented samples in the places of those that they vary."""
    device = features.pooled.device
    row = torch.from_numpy(plan.row).to(device)
    label = features.label[row]
    n_channels = features.pooled.shape[1]
    # Padded here, row by row: a padded copy of all features would take as much memory again.
    pooled = torch.empty(*row.shape, padded_channels(n_channels), dtype=torch.float32, device=device)
    torch.index_select(features.pooled, 0, row.flatten(), out=pooled.flatten(0, 1)[:, :n_channels])
    pooled[..., n_channels] = 1
    pooled[..., n_channels + 1 :] = 0
    if plan.n_augmented:
        fused = maps.fused(plan)
        pooled[:, -plan.n_augmented :, :n_channels].copy_(fused, non_blocking=True)
    return Window(start, pooled, label, plan, n_empty)


def window_bounds(start: int, stop: int, window: int, stops: list[int]) -> list[tuple[int, int]]:
    """Consecutive windows of at most `window` iterations, none across an iteration of `stops`."""
    cuts = sorted({start, stop, *(s for s in stops if start < s < stop)})
    bounds = []
    for begin, end in pairwise(cuts):
        bounds += [(i, min(i + window, end)) for i in range(begin, end, window)]
    return bounds
