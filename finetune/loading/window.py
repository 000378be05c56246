"""A window: the batches of consecutive iterations, assembled together."""

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
    """Batches ready for training.

    Attributes:
        start: iteration of the first batch, counted from 0.
        pooled: (T, B, Cp) float32 padded features: real rows, then mixed ones. Where these have two labels
            (see `Mix`), they come once more after them, (T, B + A, Cp), with the other label.
        label: (T, B) int64, or (T, B + A).
        plan: the plan of the batches.
        share: (T, B + A) float64 share of a sample that a row counts for, 1 or that of its label; None for 1.
    """

    start: int
    pooled: torch.Tensor
    label: torch.Tensor
    plan: Plan
    share: torch.Tensor | None = None

    @property
    def n_mixed(self) -> int:
        """Number of mixed samples in all batches."""
        return self.plan.n_mixed

    @property
    def n_empty(self) -> np.ndarray:
        """(2,) mixed samples with an empty class-specific and an empty class-generic set."""
        return np.zeros(2, np.int64) if self.plan.mix is None else self.plan.mix.n_empty


class WindowMaker:
    """Makes any window of a run.

    Attributes:
        inputs: what the plan is drawn from.
    """

    def __init__(
        self,
        draw: Callable[[PlanInputs, int, int], Plan],
        inputs: PlanInputs,
        features: Features,
        maps: Maps | None,
    ):
        self._draw, self._features, self._maps = draw, features, maps
        self.inputs = inputs

    def make(self, bounds: tuple[int, int]) -> Window:
        """The window of iterations bounds[0] to bounds[1] (exclusive).

        Raises:
            StoreError: feature maps cannot be read.
        """
        plan = self._draw(self.inputs, *bounds)
        with RECORDING:
            return assemble(plan, self._features, self._maps, bounds[0])


def assemble(plan: Plan, features: Features, maps: Maps | None, start: int) -> Window:
    """Gather the rows of a plan, and put the mixed samples in place of the last ones."""
    device = features.pooled.device
    row, share = torch.as_tensor(plan.row, device=device), None
    label, batch_size = features.label[row], row.shape[1]
    if hasattr(plan.mix, "label_share"):
        partner, own = (torch.as_tensor(p, device=device) for p in (plan.mix.partner, plan.mix.label_share))
        ones = torch.ones(len(row), batch_size - own.shape[1], dtype=torch.float64, device=device)
        share = torch.cat([ones, own, 1 - own], dim=1)
        label = torch.cat([label, features.label[partner]], dim=1)
        row = torch.cat([row, row[:, -own.shape[1] :]], dim=1)
    n_channels = features.pooled.shape[1]
    # Padded here, because a padded copy of all features would double their memory.
    pooled = torch.empty(*row.shape, padded_channels(n_channels), dtype=torch.float32, device=device)
    torch.index_select(features.pooled, 0, row.flatten(), out=pooled.flatten(0, 1)[:, :n_channels])
    pooled[..., n_channels] = 1
    pooled[..., n_channels + 1 :] = 0
    if plan.mix is not None:
        mixed = plan.mix.pooled(features, maps)
        places = pooled[:, batch_size - plan.mix.n_samples : batch_size, :n_channels]
        if plan.is_mixed is None:
            places.copy_(mixed, non_blocking=True)
        else:
            places[torch.as_tensor(plan.is_mixed, device=device)] = mixed.to(device)
        pooled[:, batch_size:, :n_channels] = places[:, : row.shape[1] - batch_size]
    return Window(start, pooled, label, plan, share)


def window_bounds(start: int, stop: int, window: int, stops: list[int]) -> list[tuple[int, int]]:
    """Consecutive windows of at most `window` iterations; none crosses an iteration in `stops`."""
    cuts = sorted({start, stop, *(s for s in stops if start < s < stop)})
    bounds = []
    for begin, end in pairwise(cuts):
        bounds += [(i, min(i + window, end)) for i in range(begin, end, window)]
    return bounds
