"""Training history of one head: losses, accuracies, the best layer so far, and where it diverged."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from analysis.accuracy import is_score
from extract.heads.kinds import FullyConnected, Layer, layer_of, saved_parts
from finetune.loading.window import Window
from finetune.sampling.arrays import Array, on_host


class Best(NamedTuple):
    """The layer with the best accuracy so far; the earliest one on a tie."""

    iteration: int = -1
    accuracy: float = -np.inf
    layer: Layer | None = None


class Divergence(NamedTuple):
    """Where a head's loss became NaN or infinite.

    Attributes:
        iteration: the first such iteration, counted from 1.
        rows: (B,) store rows of its batch.
    """

    iteration: int
    rows: np.ndarray


@dataclass(frozen=True)
class Steps:
    """What a history needs of a window, which itself is too large to keep.

    Attributes:
        start: iteration of the first batch, counted from 0.
        row: (T, B) int64 store rows of the batches.
        n_mixed: mixed samples.
        n_empty: (2,) those with an empty class-specific and an empty class-generic set.
    """

    start: int
    row: Array
    n_mixed: int
    n_empty: np.ndarray

    @classmethod
    def of(cls, window: Window) -> "Steps":
        """Those of a window."""
        return cls(window.start, window.plan.row, window.n_mixed, window.n_empty)


@dataclass
class HeadHistory:
    """Training history of one head.

    Attributes:
        rank_by: accuracy that decides which layer is best, a key of SCORES.
        metrics: rows of metrics.csv: iteration, loss (mean since the previous row; NaN at 0), accuracies.
        loss_sum: sum of the losses since the last row.
        n_steps: steps since the last row.
        n_empty: (2,) mixed samples so far with an empty class-specific or class-generic set.
        n_mixed: mixed samples so far.
        best: the best layer so far.
        diverged: where the loss became NaN or infinite, if it did.
    """

    rank_by: str
    metrics: list[dict[str, Any]] = field(default_factory=list)
    loss_sum: float = 0.0
    n_steps: int = 0
    n_empty: np.ndarray = field(default_factory=lambda: np.zeros(2, np.int64))
    n_mixed: int = 0
    best: Best = field(default_factory=Best)
    diverged: Divergence | None = None

    @property
    def iteration(self) -> int:
        """Steps taken, up to the last row of metrics."""
        return self.metrics[-1]["iteration"]

    def add_steps(self, steps: Steps, losses: torch.Tensor) -> None:
        """Add the steps of a window, given the (T,) float64 losses of its batches, on the host."""
        for loss in losses.tolist():  # one by one, so that the sum does not depend on a window's length
            self.loss_sum += loss
        self.n_steps += len(losses)
        self.n_empty = self.n_empty + steps.n_empty
        self.n_mixed += steps.n_mixed
        bad = np.flatnonzero(~np.isfinite(losses.numpy()))
        if bad.size and self.diverged is None:
            self.diverged = Divergence(steps.start + int(bad[0]) + 1, on_host(steps.row[bad[0]]))

    def add_row(self, iteration: int, accuracies: dict[str, float], layer: Layer) -> None:
        """Add a row of metrics for the steps since the previous one; keep the layer if it is the best."""
        loss = self.loss_sum / self.n_steps if self.n_steps else np.nan
        self.loss_sum, self.n_steps = 0.0, 0
        self.metrics.append({"iteration": iteration, "loss": loss} | accuracies)
        score = [value for name, value in accuracies.items() if is_score(name, [self.rank_by])]
        if score and self.diverged is None and score[0] > self.best.accuracy:
            self.best = Best(iteration, score[0], layer)

    def kept_iteration(self, keep: str) -> int:
        """The iteration of the layer that is kept, "best" or "last"."""
        return self.best.iteration if keep == "best" else self.iteration

    def frame(self) -> pd.DataFrame:
        """The frame written as metrics.csv.

        Its columns are those of the first row: a run that an older version started has no balanced
        accuracies there, so it gets none in later rows either.
        """
        return pd.DataFrame(self.metrics, columns=list(self.metrics[0]))


def state_of(histories: list[HeadHistory]) -> dict[str, Any]:
    """State to save, for `histories_of`: numbers, lists and tensors only.

    A stored format, shared with older versions, which counted augmented samples since the last row
    separately.
    """
    counts = {"n_steps": histories[0].n_steps, "loss": [history.loss_sum for history in histories]}
    courses = [
        {
            "metrics": list(history.metrics),
            "n_empty": history.n_empty.tolist(),
            "n_augmented": history.n_mixed,
            "best": {
                "iteration": history.best.iteration,
                "accuracy": float(history.best.accuracy),
                "layer": history.best.layer and saved_parts(history.best.layer),
            },
        }
        for history in histories
    ]
    return {"courses": courses, "tally": counts | {"n_empty": [0, 0], "n_augmented": 0}}


def histories_of(state: dict[str, Any], rank_by: list[str], device: torch.device) -> list[HeadHistory]:
    """Histories from a saved state, with their best layers on a device."""
    tally, histories = state["tally"], []
    for course, loss_sum, by in zip(state["courses"], tally["loss"], rank_by, strict=True):
        best = course["best"]
        layer = best["layer"] and _on(device, best["layer"])
        histories.append(
            HeadHistory(
                rank_by=by,
                metrics=course["metrics"],
                loss_sum=loss_sum,
                n_steps=tally["n_steps"],
                n_empty=np.add(course["n_empty"], tally["n_empty"]),
                n_mixed=course["n_augmented"] + tally["n_augmented"],
                best=Best(best["iteration"], best["accuracy"], layer),
            )
        )
    return histories


def _on(device: torch.device, saved: dict[str, Any] | list[torch.Tensor]) -> Layer:
    """A saved head on a device; a list of weight and bias is of an older version."""
    layer = FullyConnected(*saved) if isinstance(saved, list) else layer_of(saved)
    return type(layer)(*(part.to(device) for part in layer))
