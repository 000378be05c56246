"""Range loss (Zhang et al. 2017) on pooled features, beside cross-entropy.

Σ over the classes in a batch of the harmonic mean of their two largest distances, 2 / (1/d₁ + 1/d₂), +
[m − the smallest distance between two classes' centres]₊. A class of two images has one distance, d₁; one of
a single image has none. Distances are Euclidean; the paper's between centres are squared. Its factors α and
β of the two parts are both 1 here.
"""

from typing import TYPE_CHECKING, Any

from extract.training.losses.distances import beside_cross_entropy, distances
from extract.training.losses.kind import Loss, LossKind, Setting

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-12  # sum of two distances


def range_loss(pooled: "Tensor", labels: "Tensor", margin: float) -> "Tensor":
    """The loss of a batch.

    Args:
        pooled: (B, C) float32.
        labels: (B,) int64.
        margin: m.
    """
    same = labels[:, None] == labels
    is_first = ~same.tril(-1).any(dim=1)  # of its class: it stands for the class
    return within(distances(pooled), same, is_first) + between(pooled, same, margin)


def within(distance: "Tensor", same: "Tensor", is_first: "Tensor") -> "Tensor":
    """Σ over classes of the harmonic mean of their two largest distances."""
    n_images = len(distance)
    # The two largest of a class are among the two largest of each of its images to later ones.
    of_pairs = distance.masked_fill(~same.triu(1), -1)
    of_images = of_pairs.topk(min(2, n_images), dim=1).values  # (B, 2)
    of_classes = of_images.masked_fill(~same[:, :, None], -1).flatten(1)  # (B, 2 B), a row for each class
    largest, second = of_classes.topk(2, dim=1).values.unbind(1) if n_images > 1 else (of_pairs[0],) * 2
    mean = 2 * largest * second / (largest + second).clamp_min(SMALLEST)
    mean = mean.where(second >= 0, largest)
    return mean.masked_fill(~is_first | (largest < 0), 0).sum()


def between(pooled: "Tensor", same: "Tensor", margin: float) -> "Tensor":
    """[m − the smallest distance between two classes' centres]₊; 0 for a single class."""
    share = same / same.sum(dim=1, keepdim=True)
    distance = distances(share @ pooled).masked_fill(
        same, margin
    )  # between the centres of each image's class
    return (margin - distance.min()).relu()


def make_range(config: Any, setting: Setting) -> Loss:
    """Cross-entropy and the range loss of a resolved config."""
    return beside_cross_entropy(range_loss, config)


KIND = LossKind(make_range, {"metric_weight": 0.01, "metric_margin": 5.0}, mixes=False)
