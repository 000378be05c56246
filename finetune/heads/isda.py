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

    def __init__(self, options: list[HeadOptions], like: torch.Tensor):
        """Keep the class variances.

        Args:
            options: of each head.
            like: (S, K, Cp) the padded weights of the heads.
        """
        variance = options[0].loss.variance  # of the store, so the same for all heads
        self._variance = like.new_zeros(like.shape[1:])
        self._variance[:, : variance.shape[1]] = torch.from_numpy(variance).to(like)
        half = np.array([head.loss.strength / 2 for head in options], np.float32)
        self._half = torch.from_numpy(half).to(like.device)[:, None, None]
        self._n_iterations = options[0].n_iterations

    def add(self, logits: torch.Tensor, weight: torch.Tensor, label: torch.Tensor, iteration: int) -> "Added":
        """Add r/2 · (w_k − w_y)ᵀ Σ_y (w_k − w_y) to the logits.

        Args:
            logits: (S, K, B), in place.
            weight: (S, K, Cp).
            label: (S, 1, B) int64, the same for all heads.
            iteration: counted from 0; r grows with it, from 0.

        Returns:
            What was added, for its gradient.
        """
        classes, place = label[0, 0].unique(return_inverse=True)
        variance = self._variance[classes].expand(len(weight), -1, -1)
        added = Added(
            self._half * (iteration / self._n_iterations), classes, place, variance, weight[:, classes]
        )
        weighted = variance * added.own
        distance = torch.bmm(variance, weight.square().transpose(1, 2))  # (S, U, K)
        distance.sub_(torch.bmm(weighted, weight.transpose(1, 2)), alpha=2)
        distance.add_((weighted * added.own).sum(2, keepdim=True)).clamp_(min=0)  # below 0 by rounding alone
        distance.scatter_(2, classes[None, :, None].expand(len(weight), -1, 1), 0)
        logits.add_((added.half * distance).index_select(1, place).transpose(1, 2))
        return added


@dataclass(frozen=True)
class Added:
    """What was added to the logits of a batch.

    Attributes:
        half: (S, 1, 1) r/2.
        classes: (U,) int64 the labels of the batch, each once.
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
