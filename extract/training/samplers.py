"""How often each class is seen in an epoch of Phase I (Kang et al., "Decoupling", sec. 4.1).

The probability of a class of n images is proportional to n^q: q 1 shows every image once (instance), 0 every
class as often (class-balanced), 1/2 lies between (square-root); progressive goes from first to second.
"""

from typing import Any

import numpy as np
import torch

from extract.config import TrainConfig

POWERS = {"instance": 1.0, "class-balanced": 0.0, "square-root": 0.5}


def class_probabilities(sampler: str, class_counts: np.ndarray, share: float) -> np.ndarray:
    """The class distribution that a sampler delivers, which is the prior of what is trained on.

    Args:
        sampler: its name.
        class_counts: (K,) training images of each class.
        share: finished whole epochs, as a share of all; only progressive depends on it.

    Returns:
        (K,) float64, of sum 1; a class without images has 0.
    """
    if sampler == "progressive":
        first, last = (class_probabilities(name, class_counts, 0) for name in ("instance", "class-balanced"))
        return (1 - share) * first + share * last
    counts = np.asarray(class_counts, np.float64)
    weights = np.where(counts > 0, counts ** POWERS[sampler], 0)
    return weights / weights.sum()


def drawn_order(sampler: str, label: np.ndarray, share: float, generator: torch.Generator) -> torch.Tensor:
    """Which images an epoch shows, in order: as many as there are, some of them several times.

    Classes are drawn with replacement; within a class, no image comes again before all others have come.

    Args:
        sampler: its name, not `instance`, whose epoch is a permutation.
        label: (N,) int64 class of each image.
        share: finished whole epochs, as a share of all.
        generator: on the CPU, in its state at the start of the epoch.

    Returns:
        (N,) int64 positions of images.
    """
    counts = np.bincount(label)
    probabilities = torch.from_numpy(class_probabilities(sampler, counts, share))
    drawn = torch.multinomial(probabilities, len(label), replacement=True, generator=generator)
    by_class = torch.from_numpy(np.argsort(label, kind="stable")).split(counts.tolist())
    order = torch.empty(len(label), dtype=torch.int64)
    places = drawn.argsort(stable=True).split(torch.bincount(drawn, minlength=len(counts)).tolist())
    for members, wanted in zip(by_class, places, strict=True):
        if len(wanted):
            rounds = -(-len(wanted) // len(members))
            shuffled = torch.rand(rounds, len(members), generator=generator).argsort(dim=1)
            order[wanted] = members[shuffled.flatten()[: len(wanted)]]
    return order


def sampled_order(
    config: TrainConfig, label: np.ndarray, epoch: int, generator: torch.Generator
) -> torch.Tensor | None:
    """`drawn_order` of a resolved config after `epoch` epochs; None for each image once."""
    if config.sampler == "instance":
        return None
    return drawn_order(config.sampler, label, epoch / config.epochs, generator)


def seen(order: torch.Tensor) -> dict[str, Any]:
    """How often images are seen in an epoch, for metrics.csv.

    Args:
        order: (N,) int64 positions of images, of `drawn_order`.
    """
    times = torch.bincount(order)
    return {"different_images": int((times > 0).sum()), "most_repeated": int(times.max())}
