"""What is known of a head on its way: metrics, the best so far, and the state to go on from."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis.accuracy import is_score
from finetune.training.loop import Divergence, Leg
from finetune.training.selection import Best, Layer


@dataclass
class HeadHistory:
    """A head on its way.

    Attributes:
        metrics: rows of metrics.csv: iteration, loss (mean since the row before; NaN at 0), accuracies.
        n_empty: augmented samples so far whose class-specific, and class-generic set was empty.
        n_augmented: augmented samples so far.
        best: the best head so far.
        diverged: where its loss stopped being a number.
        rank_by: what the best head is best by, of SCORES.
    """

    metrics: list[dict[str, Any]] = field(default_factory=list)
    n_empty: np.ndarray = field(default_factory=lambda: np.zeros(2, np.int64))
    n_augmented: int = 0
    best: Best = field(default_factory=Best)
    diverged: Divergence | None = None
    rank_by: str = "balanced"

    @property
    def iteration(self) -> int:
        """Steps taken."""
        return self.metrics[-1]["iteration"]

    def begin(self, accuracies: dict[str, float], layer: Layer) -> None:
        """Note how it starts."""
        self._note(0, np.nan, accuracies, layer)

    def go_on(self, leg: Leg, head: int, accuracies: dict[str, float], layer: Layer) -> None:
        """Note a leg of a head."""
        self.n_empty, self.n_augmented = self.n_empty + leg.n_empty, self.n_augmented + leg.n_augmented
        self.diverged = leg.diverged[head]
        self._note(leg.iteration, float(leg.loss[head]), accuracies, layer)

    def _note(self, iteration: int, loss: float, accuracies: dict[str, float], layer: Layer) -> None:
        self.metrics.append({"iteration": iteration, "loss": loss} | accuracies)
        score = [value for name, value in accuracies.items() if is_score(name, [self.rank_by])]
        if score and self.diverged is None:
            self.best.offer(iteration, score[0], layer)

    def frame(self) -> pd.DataFrame:
        """metrics.csv.

        A run that an earlier program began has no balanced accuracies in its first rows: then in none.
        """
        return pd.DataFrame(self.metrics, columns=list(self.metrics[0]))

    def state(self) -> dict[str, Any]:
        """What `from_state` makes it from; numbers, lists and tensors only."""
        layer = None if self.best.layer is None else [part.cpu() for part in self.best.layer]
        best = {"iteration": self.best.iteration, "accuracy": float(self.best.accuracy), "layer": layer}
        empty = [int(n) for n in self.n_empty]
        return {
            "metrics": list(self.metrics),
            "n_empty": empty,
            "n_augmented": self.n_augmented,
            "best": best,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device, rank_by: str) -> "HeadHistory":
        """What `state` was made from, its best head on a device."""
        best = state["best"]
        layer = None if best["layer"] is None else tuple(part.to(device) for part in best["layer"])
        empty = np.array(state["n_empty"], np.int64)
        best = Best(best["iteration"], best["accuracy"], layer)
        return cls(state["metrics"], empty, state["n_augmented"], best, rank_by=rank_by)
