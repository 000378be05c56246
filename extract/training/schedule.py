"""The learning rate of Phase I."""

import math

from extract.config import TrainConfig
from extract.training.recipes import RECIPES


def learning_rate(config: TrainConfig, epoch: float) -> float:
    """The learning rate of a resolved config; `epoch` counts finished epochs, with fractions."""
    if epoch < config.warmup_epochs:
        return config.lr * epoch / config.warmup_epochs
    if config.schedule == "cosine":
        share = (epoch - config.warmup_epochs) / max(1, config.epochs - config.warmup_epochs)
        return config.lr * (1 + math.cos(math.pi * share)) / 2
    milestones = RECIPES[config.recipe].milestones
    return config.lr * 0.1 ** sum(epoch >= milestone * config.epochs for milestone in milestones)
