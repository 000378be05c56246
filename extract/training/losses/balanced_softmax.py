"""Balanced softmax (Ren et al. 2020), the logit-adjusted loss at τ (Menon et al. 2021): cross-entropy of
z + τ · log π.

π is the class distribution of the batches as the sampler delivers them. A class without images counts as one
of one image, so that its logit stays finite.
"""

from typing import Any

from extract.training.losses.kind import Loss, LossKind, Setting


def make_balanced_softmax(config: Any, setting: Setting) -> Loss:
    """The balanced softmax of a resolved config."""
    from torch.nn.functional import cross_entropy

    counts = setting.delivered.where(setting.delivered > 0, 1)
    shift = (config.tau * (counts / counts.sum()).log()).float()
    return Loss(
        lambda z, y: cross_entropy(z + shift, y, reduction="none"), lambda z, y: cross_entropy(z + shift, y)
    )


KIND = LossKind(make_balanced_softmax, {"tau": 1.0})
