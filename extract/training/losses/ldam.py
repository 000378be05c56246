"""LDAM, label-distribution-aware margins, with deferred re-weighting (Cao et al. 2019).

Cross-entropy of s · (cos_k − [k = y] · Δ_y), with Δ_c = Δ · (n_c / the smallest n)^(−1/4) and cos_k the
cosine of the pooled feature and the weights of class k. Cosines are the authors' rule, whose last layer
normalises its weights and has no bias. Ours is a plain FC layer whose logits the store must reproduce, so its
weights get norm 1 and its biases 0 after every step. The network's logits are then the cosines times the norm
of the pooled feature, and the class that it predicts is that of the largest cosine.

n are images of the training split whatever the sampler: margins are about how many were seen, not how often.
"""

from typing import TYPE_CHECKING, Any

from extract.training.losses.kind import Loss, LossKind, Setting
from extract.training.losses.weighting import deferred_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

SMALLEST = 1e-12  # norm of a feature or of weights
LATE = 0.8  # share of the epochs before re-weighting: 160 of 200 in the authors' code


def margins(counts: "Tensor", largest: float) -> "Tensor":
    """(K,) float32 margins from (K,) float64 counts; the smallest class with images has the largest."""
    smallest = counts[counts > 0].min()
    return (largest * (counts.clamp_min(1) / smallest) ** -0.25).clamp_max(largest).float()


def make_ldam(config: Any, setting: Setting) -> Loss:
    """The LDAM loss of a resolved config."""
    import torch
    from torch.nn.functional import cross_entropy

    classifier, scale = setting.classifier, config.logit_scale
    margin = margins(setting.images, config.max_margin)
    classes = torch.arange(len(margin), device=margin.device)

    def outputs(logits: "Tensor", pooled: "Tensor") -> "Tensor":
        products = logits if classifier.bias is None else logits - classifier.bias
        norms = classifier.weight.norm(dim=1).clamp_min(SMALLEST)
        return products / pooled.norm(dim=1, keepdim=True).clamp_min(SMALLEST) / norms

    def terms(cosines: "Tensor", labels: "Tensor") -> "Tensor":
        is_label = labels[:, None] == classes
        shifted = cosines - torch.where(is_label, margin[labels][:, None], 0)
        return cross_entropy(scale * shifted, labels, reduction="none")

    weights = deferred_weights(config, setting)
    return Loss(terms, outputs=outputs, weights=weights, constrain=lambda: hold_to_sphere(classifier))


def hold_to_sphere(classifier: "nn.Linear") -> None:
    """Give the weights of each class norm 1, and remove biases."""
    import torch

    with torch.no_grad():
        classifier.weight.div_(classifier.weight.norm(dim=1, keepdim=True).clamp_min(SMALLEST))
        if classifier.bias is not None:
            classifier.bias.zero_()


def _late(epochs: int) -> int:
    return round(LATE * epochs)


KIND = LossKind(make_ldam, {"max_margin": 0.5, "logit_scale": 30.0, "drw_epoch": _late})
