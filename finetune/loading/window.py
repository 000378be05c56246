"""A window: the batches of consecutive iterations, assembled together."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from extract.inference.transfer import to_device
from finetune.heads.cuda_graph import RECORDING
from finetune.heads.row_terms import SecondLabel
from finetune.heads.stacked import padded_channels
from finetune.loading.features import Features
from finetune.loading.residency import Maps
from finetune.loading.upload import arrive, uploads_on
from finetune.mixing.mix import Mix
from finetune.sampling.plan import Plan, PlanInputs


@dataclass(frozen=True)
class Window:
    """Batches ready for training.

    Attributes:
        start: iteration of the first batch, counted from 0.
        pooled: (T, B, Cp) float32 padded features: real rows, then mixed ones.
        label: (T, B) int64.
        plan: the plan of the batches.
        second: second labels of samples that are mixed of two; None if none are.
        sent: where a GPU makes it on another stream than that of the steps, when it is there; see `arrive`.
    """

    start: int
    pooled: torch.Tensor
    label: torch.Tensor
    plan: Plan
    second: SecondLabel | None = None
    sent: torch.cuda.Event | None = None

    def arrive(self) -> None:
        """Let what this thread asks a GPU for from now on wait for the window; on a CPU it is there."""
        second = () if self.second is None else (self.second.label, self.second.share)
        arrive(self.sent, [self.pooled, self.label, *second])

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
        self._uploads = uploads_on(features.pooled.device)

    def make(self, bounds: tuple[int, int]) -> Window:
        """The window of iterations bounds[0] to bounds[1] (exclusive).

        Raises:
            StoreError: feature maps cannot be read.
        """
        uploads = self._uploads
        with nullcontext() if uploads is None else uploads.own_stream():
            plan = self._draw(self.inputs, *bounds)
            with RECORDING:
                window = assemble(plan, self._features, self._maps, bounds[0])
                return window if uploads is None else replace(window, sent=uploads.sent())


def assemble(plan: Plan, features: Features, maps: Maps | None, start: int) -> Window:
    """Gather the rows of a plan, and put the mixed samples in place of the last ones."""
    device = features.pooled.device
    row = to_device(torch.as_tensor(plan.row), device)
    label, n_channels = features.label[row], features.pooled.shape[1]
    # Padded here, because a padded copy of all features would double their memory.
    pooled = torch.empty(*row.shape, padded_channels(n_channels), dtype=torch.float32, device=device)
    torch.index_select(features.pooled, 0, row.flatten(), out=pooled.flatten(0, 1)[:, :n_channels])
    pooled[..., n_channels] = 1
    pooled[..., n_channels + 1 :] = 0
    if plan.mix is None:
        return Window(start, pooled, label, plan)
    plan.mix.write(pooled[:, -plan.mix.n_samples :, :n_channels], features, maps)
    return Window(start, pooled, label, plan, _second_label(label, plan.mix, features))


def _second_label(label: torch.Tensor, mix: Mix, features: Features) -> SecondLabel | None:
    """Labels of partners, if a mix has them; other rows have their own label once more, with no share."""
    if not hasattr(mix, "label_share"):
        return None
    places, device = slice(label.shape[1] - mix.n_samples, None), label.device
    second = SecondLabel(label.clone(), torch.zeros(label.shape, dtype=torch.float64, device=device))
    second.label[:, places] = features.label[torch.as_tensor(mix.partner, device=device)]
    second.share[:, places] = 1 - torch.as_tensor(mix.label_share, device=device)
    return second


def window_bounds(start: int, stop: int, window: int, stops: list[int]) -> list[tuple[int, int]]:
    """Consecutive windows of at most `window` iterations; none crosses an iteration in `stops`."""
    cuts = sorted({start, stop, *(s for s in stops if start < s < stop)})
    bounds = []
    for begin, end in pairwise(cuts):
        bounds += [(i, min(i + window, end)) for i in range(begin, end, window)]
    return bounds
