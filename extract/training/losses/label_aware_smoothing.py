"""Label-aware smoothing (MiSLAS, Zhong et al. 2021): labels of large classes are smoothed more than others.

(1 − e_y) · −log p_y + e_y · the mean over all k of −log p_k, as in the authors' code (in the paper, over
classes other than y). e falls from e_1 for the largest class to e_K for the smallest:
e_y = e_K + (e_1 − e_K) · sin(π/2 · (n_y − n_K) / (n_1 − n_K)), and e_1 for all where classes are of one size.
The authors use it for the classifier alone, in their second stage.
"""

import math
from typing import TYPE_CHECKING, Any

from extract.training.losses.kind import Loss, LossKind, Setting

if TYPE_CHECKING:
    from torch import Tensor


def smoothing(counts: "Tensor", head: float, tail: float) -> "Tensor":
    """(K,) float32 smoothing of each class's label, from (K,) float64 counts."""
    present = counts[counts > 0]
    least, most = present.min(), present.max()
    share = (counts.clamp_min(least) - least) / (most - least)
    share = share.where(most > least, 1)
    return (tail + (head - tail) * (math.pi / 2 * share).sin()).float()


def make_label_aware_smoothing(config: Any, setting: Setting) -> Loss:
    """The label-aware smoothing of a resolved config."""
    amount = smoothing(setting.images, config.smooth_head, config.smooth_tail)

    def terms(logits: "Tensor", labels: "Tensor") -> "Tensor":
        from torch.nn.functional import cross_entropy

        e = amount[labels]
        uniform = -logits.log_softmax(dim=1).mean(dim=1)
        return (1 - e) * cross_entropy(logits, labels, reduction="none") + e * uniform

    return Loss(terms)


KIND = LossKind(make_label_aware_smoothing, {"smooth_head": 0.3, "smooth_tail": 0.0})
