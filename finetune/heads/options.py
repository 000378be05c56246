"""Where a head starts, and how it is trained."""

import math
from dataclasses import dataclass, field

import numpy as np

from finetune.heads.losses import Loss


@dataclass(frozen=True)
class HeadOptions:
    """Where one head starts, and how it is trained.

    Attributes:
        weight, bias: (K, C) and (K,) float32 at the start.
        loss: its loss.
        lr: learning rate at the start.
        momentum: of SGD.
        weight_decay: of weights and biases.
        max_norm: the longest that a class's weight may be; None for no bound.
        max_norm_every: iterations between steps after which it is cut to that; the last step is one of them.
        schedule: "constant", or "cosine" down to 0 at the last of n_iterations.
        n_iterations: of the whole run.
        trainable: "fc", or "scales": one factor of each class's logit, the layer as it is.
    """

    weight: np.ndarray = field(repr=False)
    bias: np.ndarray = field(repr=False)
    loss: Loss
    lr: float
    momentum: float
    weight_decay: float = 0.0
    max_norm: float | None = None
    max_norm_every: int = 1
    schedule: str = "constant"
    n_iterations: int = 1
    trainable: str = "fc"

    @property
    def structure(self) -> tuple:
        """Heads that share it go through the same operations, and may be stacked."""
        loss = self.loss
        of_loss = (
            loss.shift is None,
            loss.class_weight is None,
            loss.divide_by_weights,
            loss.focal_gamma > 0,
            loss.against_rest,
        )
        of_sgd = (self.momentum, self.weight_decay > 0, self.max_norm is None, self.max_norm_every)
        return (self.trainable, self.schedule, self.n_iterations, *of_sgd, *of_loss)

    def share_of_lr(self, iteration: int) -> float:
        """The learning rate of an iteration (counted from 0) over the one at the start."""
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * iteration / self.n_iterations))

    def is_cut_after(self, iteration: int) -> bool:
        """Whether weights longer than `max_norm` are cut after an iteration (counted from 0)."""
        at_end = iteration + 1 == self.n_iterations
        return self.max_norm is not None and (at_end or (iteration + 1) % self.max_norm_every == 0)

    @property
    def asks_for_iteration(self) -> bool:
        """Whether a step depends on its number."""
        return self.schedule != "constant" or (self.max_norm is not None and self.max_norm_every > 1)
