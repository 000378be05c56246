"""Implicit semantic data augmentation (ISDA, Wang et al. 2019; for long tails, MetaSAug, Li et al. 2021).

The mean loss over all samples N(x, r Σ_y) around a row is at most the cross-entropy of
z_k + r/2 · (w_k − w_y)ᵀ Σ_y (w_k − w_y), so no sample is drawn. Here Σ_y is diagonal, as its authors have it
for many classes.
"""

import numpy as np
import torch

from finetune.heads.options import HeadOptions


class ImplicitSamples:
    """What ISDA adds to the logits of S stacked heads, and to the gradients of their weights.

    Its K × K products of weights cost as much as a batch of K rows.
    """

    def __init__(self, options: list[HeadOptions], like: torch.Tensor):
        """Keep the class variances.

        Args:
            options: of each head.
            like: (S, K, Cp) the padded weights of the heads.
        """
        variance = options[0].loss.variance  # of the store, so the same for all heads
        of_store = like.new_zeros(like.shape[1:])
        of_store[:, : variance.shape[1]] = torch.from_numpy(variance).to(like)
        self._variance = of_store.expand(like.shape)
        half = np.array([head.loss.strength / 2 for head in options], np.float32)
        self._half = torch.from_numpy(half).to(like.device)[:, None, None]
        self._n_iterations = options[0].n_iterations

    def add(
        self, logits: torch.Tensor, weight: torch.Tensor, label: torch.Tensor, iteration: int
    ) -> torch.Tensor:
        """Add r/2 · (w_k − w_y)ᵀ Σ_y (w_k − w_y) to the logits.

        Args:
            logits: (S, K, B), in place.
            weight: (S, K, Cp).
            label: (S, 1, B) int64.
            iteration: counted from 0; r grows with it, from 0.

        Returns:
            (S, 1, 1) r/2, for `add_gradient`.
        """
        half, squares = self._half * (iteration / self._n_iterations), weight.square()
        weighted = self._variance * weight
        distance = torch.bmm(self._variance, squares.transpose(1, 2))  # (S, K_y, K)
        distance.sub_(torch.bmm(weighted, weight.transpose(1, 2)), alpha=2)
        distance.add_((weighted * weight).sum(2, keepdim=True)).clamp_(min=0)  # below 0 by rounding alone
        distance.diagonal(dim1=1, dim2=2).zero_()
        of_label = label.transpose(1, 2).expand(-1, -1, weight.shape[1])  # (S, B, K)
        logits.add_((half * distance).gather(1, of_label).transpose(1, 2))
        return half

    def add_gradient(
        self,
        velocity: torch.Tensor,
        gradient: torch.Tensor,
        weight: torch.Tensor,
        label: torch.Tensor,
        half: torch.Tensor,
    ) -> None:
        """Add the gradient of the weights by way of what `add` added.

        Args:
            velocity: (S, K, Cp), in place.
            gradient: (S, K, B) of the logits.
            weight: (S, K, Cp).
            label: (S, 1, B) int64.
            half: what `add` returned.
        """
        is_label = torch.zeros_like(gradient).scatter_(1, label, 1)  # (S, K_y, B)
        of_pair = torch.bmm(gradient, is_label.transpose(1, 2)) * (2 * half)  # (S, K, K_y)
        weighted = self._variance * weight
        velocity.addcmul_(torch.bmm(of_pair, self._variance), weight)
        velocity.sub_(torch.bmm(of_pair, weighted))
        own = of_pair.sum(1).unsqueeze(2) * weight - torch.bmm(of_pair.transpose(1, 2), weight)
        velocity.addcmul_(self._variance, own)
