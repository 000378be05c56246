"""The learning rate of Phase I."""

import math

from extract.config import TrainConfig
from extract.training.recipes import RECIPES
from store.notes import note

# One-cycle, as torch's OneCycleLR: from lr / 25 up to lr, then down to lr / 25 / 10,000, both along a cosine.
RISE, FIRST, LAST = 0.3, 1 / 25, 1 / 250_000


def learning_rate(config: TrainConfig, epoch: float, n_images: int | None = None) -> float:
    """The learning rate of a resolved config.

    Args:
        config: the options.
        epoch: finished epochs, with fractions.
        n_images: in an epoch, of which a step has at most all; None for enough.
    """
    highest = highest_rate(config, n_images)
    if epoch < config.warmup_epochs:
        return highest * epoch / config.warmup_epochs
    if config.schedule == "cosine":
        share = (epoch - config.warmup_epochs) / max(1, config.epochs - config.warmup_epochs)
        return highest * (1 + math.cos(math.pi * share)) / 2
    if config.schedule == "one-cycle":
        share = epoch / config.epochs
        if share < RISE:
            return highest * _along_cosine(FIRST, 1, share / RISE)
        return highest * _along_cosine(1, LAST, (share - RISE) / (1 - RISE))
    milestones = RECIPES[config.recipe].milestones
    return highest * 0.1 ** sum(epoch >= milestone * config.epochs for milestone in milestones)


def highest_rate(config: TrainConfig, n_images: int | None = None) -> float:
    """The learning rate that a schedule starts from or rises to; arguments as of `learning_rate`."""
    stated_for = config.optimisation.lr_batch_size
    return config.lr if stated_for is None else config.lr * images_a_step(config, n_images) / stated_for


def images_a_step(config: TrainConfig, n_images: int | None = None) -> int:
    """Images that the gradient of a step is the mean over; arguments as of `learning_rate`."""
    asked = config.batch_size * config.optimisation.accumulate
    return asked if n_images is None else min(asked, n_images)


def note_rates(config: TrainConfig, n_images: int) -> None:
    """Note what may surprise in learning rates and steps: scaling, a warm-up without end, few batches.

    Args:
        config: as resolved.
        n_images: in an epoch.
    """
    stated_for, n_step = config.optimisation.lr_batch_size, images_a_step(config, n_images)
    if stated_for not in (None, n_step):
        note(
            f"the learning rate {config.lr:g} is stated for {stated_for} images in a step; for {n_step} it "
            f"is {highest_rate(config, n_images):g}"
        )
    if config.warmup_epochs >= config.epochs:
        note(
            f"the learning rate warms up for {config.warmup_epochs} epochs and training has {config.epochs}, "
            f"so it never reaches {highest_rate(config, n_images):g}; --warmup-epochs shortens it"
        )
    if (n_batches := config.optimisation.accumulate) > 1 and images_a_step(config) > n_images:
        found = -(-n_images // config.batch_size)
        note(f"--accumulate {n_batches}: an epoch has {found} batches, so that all of them are one step")


def _along_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
