"""Implicit semantic data augmentation (ISDA, Wang et al. 2019; for long tails, MetaSAug, Li et al. 2021).

The mean loss over all samples N(x, r Σ_y) around a row is at most the cross-entropy of
z_k + r/2 · (w_k − w_y)ᵀ Σ_y (w_k − w_y), so no sample is drawn. Here Σ_y is diagonal, as its authors have it
for many classes.
"""

from dataclasses import dataclass

import numpy as np
import torch

from finetune.heads.options import HeadOptions


class ImplicitSamples:
    """What ISDA adds to the logits of S stacked heads, and to the gradients of their weights.

    Only the U classes that label a row of the batch matter, so a step costs three to four times that of
    cross-entropy, however many classes there are.
    """

    def __init__(self, options: list[HeadOptions], like: torch.Tensor, one_size: bool = False):
        """Keep the class variances.

        Args:
            options: of each head.
            like: (S, K, Cp) the padded weights of the heads.
            one_size: whether all arrays have the same shape in every step, as recorded steps must.
        """
        variance = options[0].loss.variance  # of the store, so the same for all heads
        self._variance = like.new_zeros(like.shape[1:])
        self._variance[:, : variance.shape[1]] = torch.from_numpy(variance).to(like)
        half = np.array([head.loss.strength / 2 for head in options], np.float32)
        self._distinct = _first_of_each if one_size else _each_once
        self._half = torch.from_numpy(half).to(like.device)[:, None, None]

    def add(
        self, logits: torch.Tensor, weight: torch.Tensor, label: torch.Tensor, progress: float
    ) -> "Added":
        """Add r/2 · (w_k − w_y)ᵀ Σ_y (w_k − w_y) to the logits.

        Args:
            logits: (S, K, B), in place.
            weight: (S, K, Cp).
            label: (S, 1, B) int64, the same for all heads.
            progress: steps taken, as a share of all, to which r is proportional; a number or a tensor.

        Returns:
            What was added, for its gradient.
        """
        classes, place = self._distinct(label[0, 0])
        variance = self._variance[classes].expand(len(weight), -1, -1)
        added = Added(self._half * progress, classes, place, variance, weight[:, classes])
        weighted = variance * added.own
        distance = torch.bmm(variance, weight.square().transpose(1, 2))  # (S, U, K)
        distance.sub_(torch.bmm(weighted, weight.transpose(1, 2)), alpha=2)
        distance.add_((weighted * added.own).sum(2, keepdim=True)).clamp_(min=0)  # below 0 by rounding alone
        distance.scatter_(2, classes[None, :, None].expand(len(weight), -1, 1), 0)
        logits.add_((added.half * distance).index_select(1, place).transpose(1, 2))
        return added


def _each_once(label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (B,), each once, and (B,) the place of each row's among them; a GPU is waited for."""
    return label.unique(return_inverse=True)


def _first_of_each(label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All labels (B,), and (B,) the first place where each row's is; other places are of no row."""
    return label, (label[:, None] == label).int().argmax(1)


@dataclass(frozen=True)
class Added:
    """What was added to the logits of a batch.

    Attributes:
        half: (S, 1, 1) r/2.
        classes: (U,) int64 the labels of the batch; some may be there again, for no row.
        place: (B,) int64 the label of each row among them.
        variance: (S, U, Cp) theirs.
        own: (S, U, Cp) their weights.
    """

    half: torch.Tensor
    classes: torch.Tensor
    place: torch.Tensor
    variance: torch.Tensor
    own: torch.Tensor

    def add_gradient(self, velocity: torch.Tensor, gradient: torch.Tensor, weight: torch.Tensor) -> None:
        """Add the gradient of the weights by way of it.

        Args:
            velocity: (S, K, Cp), in place.
            gradient: (S, K, B) of the logits.
            weight: (S, K, Cp), not changed since.
        """
        is_label = gradient.new_zeros(len(gradient), len(self.place), len(self.classes))
        is_label.scatter_(2, self.place[None, :, None].expand(len(gradient), -1, 1), 1)
        of_pair = torch.bmm(gradient, is_label) * (2 * self.half)  # (S, K, U)
        velocity.addcmul_(torch.bmm(of_pair, self.variance), weight)
        velocity.sub_(torch.bmm(of_pair, self.variance * self.own))
        of_own = of_pair.sum(1).unsqueeze(2) * self.own - torch.bmm(of_pair.transpose(1, 2), weight)
        velocity.index_add_(1, self.classes, self.variance * of_own)
