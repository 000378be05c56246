"""Lifted structure loss (Oh Song et al. 2016) on pooled features, beside cross-entropy.

1 / (2 |P|) · Σ over the pairs (i, j) of one class in the batch of
[log(Σ_k e^(m − d_ik) + Σ_k e^(m − d_jk)) + d_ij]²₊, with k images of other classes and d Euclidean distances.
"""

from typing import TYPE_CHECKING, Any

from extract.training.losses.distances import beside_cross_entropy, distances
from extract.training.losses.kind import Loss, LossKind, Setting

if TYPE_CHECKING:
    from torch import Tensor

NEVER = -1e4  # in place of −∞, whose sums have no gradient: e^NEVER is 0


def lifted_structure(pooled: "Tensor", labels: "Tensor", margin: float) -> "Tensor":
    """The loss of a batch; 0 if no two of its images have the same class.

    Args:
        pooled: (B, C) float32.
        labels: (B,) int64.
        margin: m.
    """
    distance, same = distances(pooled), labels[:, None] == labels
    of_image = (margin - distance).masked_fill(same, NEVER).logsumexp(dim=1)
    of_pair = (of_image[:, None].logaddexp(of_image) + distance).relu().square()
    pairs = same.triu(1)
    return of_pair.masked_fill(~pairs, 0).sum() / (2 * pairs.sum().clamp_min(1))


def make_lifted(config: Any, setting: Setting) -> Loss:
    """Cross-entropy and the lifted structure loss of a resolved config."""
    return beside_cross_entropy(lifted_structure, config)


KIND = LossKind(make_lifted, {"metric_weight": 0.01, "metric_margin": 1.0}, mixes=False)
