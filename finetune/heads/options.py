"""Options of one head: its initial weights and how it is trained."""

import math
from dataclasses import dataclass, field

import numpy as np

from finetune.heads.losses import Loss
from finetune.sampling.episodes import EpisodeShape


@dataclass(frozen=True)
class FewShot:
    """What weights are generated of.

    Attributes:
        head: (K_h,) int64 head classes with rows, ascending.
        pooled: (M, C) float32 rows of all other classes.
        label: (M,) int64 their classes.
        episode: of training.
    """

    head: np.ndarray = field(repr=False)
    pooled: np.ndarray = field(repr=False)
    label: np.ndarray = field(repr=False)
    episode: EpisodeShape


@dataclass(frozen=True)
class HeadOptions:
    """Initial weights of one head, and how it is trained.

    Attributes:
        weight, bias: (K, C) and (K,) float32 initial weights.
        loss: the loss.
        lr: initial learning rate.
        momentum: SGD momentum.
        weight_decay: L2 penalty on weights and biases.
        max_norm: upper bound on the norm of a class's weight; None for no bound.
        max_norm_every: steps between cuts to `max_norm`; the last step is always followed by one.
        schedule: "constant", or "cosine" down to 0 at the end of n_iterations.
        n_iterations: steps of the whole run.
        trainable: "fc"; "scales": one factor per class logit, with the FC layer frozen; "margins": a summand
            too; "scales and fc"; "weight generator"; or a head with further parts, a key of DIFFERENTIATED.
        fc_lr_share: learning rate of the FC layer where scales are trained too, as a share of lr.
        parts: float32 initial values of a head's further parts, by name.
        few_shot: what a weight generator makes weights of; None for all other heads.
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
    fc_lr_share: float = 1.0
    parts: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    few_shot: FewShot | None = None

    @property
    def structure(self) -> tuple:
        """Heads with equal structure run the same operations and can be stacked."""
        loss = self.loss
        of_loss = (
            loss.shift is None,
            loss.class_weight is None,
            loss.divide_by_weights,
            loss.focal_gamma > 0,
            loss.against_rest,
            loss.smoothing is None,
            loss.variance is None,
        )
        of_sgd = (self.momentum, self.weight_decay > 0, self.max_norm is None, self.max_norm_every)
        return (self.trainable, self.schedule, self.n_iterations, *of_sgd, *of_loss)

    def share_of_lr(self, iteration: int) -> float:
        """Learning rate of an iteration (counted from 0), divided by the initial one."""
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * iteration / self.n_iterations))

    def is_cut_after(self, iteration: int) -> bool:
        """Whether weights are cut to `max_norm` after an iteration (counted from 0)."""
        at_end = iteration + 1 == self.n_iterations
        return self.max_norm is not None and (at_end or (iteration + 1) % self.max_norm_every == 0)

    @property
    def is_cut_rarely(self) -> bool:
        """Whether weights are cut to `max_norm` after some steps and not after others."""
        return self.max_norm is not None and self.max_norm_every > 1

    @property
    def depends_on_iteration(self) -> bool:
        """Whether a step depends on the iteration number."""
        return self.schedule != "constant" or self.is_cut_rarely or self.loss.variance is not None
