"""What losses apply to the rows of a batch: weights, logit shifts, gradient factors."""

from typing import Any

import numpy as np
import torch

from finetune.heads.binary import binary_gradient
from finetune.heads.options import HeadOptions


class RowTerms:
    """What the losses of S stacked heads apply to each row.

    Attributes:
        shift: (S, K, 1) added to the logits, or None.
        focal_gamma: (S, 1, 1), or None.
    """

    def __init__(self, options: list[HeadOptions], like: torch.Tensor):
        def stacked(values: list[Any]) -> torch.Tensor | None:
            if values[0] is None:
                return None
            return torch.from_numpy(np.stack(values)).to(like)

        first = options[0].loss
        self._options = options
        self.shift = stacked([None if h.loss.shift is None else h.loss.shift[:, None] for h in options])
        self._class_weight = stacked([h.loss.class_weight for h in options])
        focal = [np.full((1, 1), h.loss.focal_gamma) if first.focal_gamma > 0 else None for h in options]
        self.focal_gamma = stacked(focal)
        self._against_rest = first.against_rest
        smoothing = [None if h.loss.smoothing is None else h.loss.smoothing[:, None] for h in options]
        self._smoothing = stacked(smoothing)
        self._minus_one = like.new_tensor(-1.0)
        self._lr = torch.tensor([head.lr for head in options], dtype=torch.float64, device=like.device)
        self._dtype = like.dtype

    def _weights(self, label: torch.Tensor, share: torch.Tensor | None) -> torch.Tensor:
        """Weight of each row in the mean over its batch.

        Args:
            label: (T, S, 1, B).
            share: (T, B) see `Window`; None for 1.
        """
        ones = torch.ones(1, 1, dtype=torch.float64, device=label.device)
        weight = (ones if share is None else share)[:, None, None]
        n_samples = label.shape[3] if share is None else weight.sum(dim=3, keepdim=True).round()
        if self._class_weight is None:
            return weight / n_samples
        index = torch.arange(len(self._options), device=label.device)[:, None, None]
        weight = self._class_weight[index, label].double() * weight
        by_weights = self._options[0].loss.divide_by_weights
        return weight / (weight.sum(dim=3, keepdim=True) if by_weights else n_samples)

    def rates(
        self, label: torch.Tensor, start: int, share_of_row: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(T, S, 1, B or 1) learning rate times weight of each row; `start` is the first iteration."""
        head = self._options[0]
        share = [head.share_of_lr(iteration) for iteration in range(start, start + len(label))]
        share = torch.tensor(share, dtype=torch.float64, device=label.device)[:, None, None, None]
        return (share * self._lr[:, None, None] * self._weights(label, share_of_row)).to(self._dtype)

    def gradient(
        self, log_p: torch.Tensor, label: torch.Tensor, fit: torch.Tensor, spare: torch.Tensor
    ) -> None:
        """Replace log p by the gradient of the logits, and write minus each row's loss to `fit`.

        Weights and the factor of a focal loss come after.

        Args:
            log_p: (S, K, B) log p of every class; overwritten.
            label: (S, 1, B) int64.
            fit: (S, 1, B) output.
            spare: (S, K, B) scratch memory.
        """
        if self._against_rest:
            binary_gradient(log_p, label, fit, spare)
            return
        torch.gather(log_p, 1, label, out=fit)
        if self._smoothing is None:
            log_p.exp_().scatter_add_(1, label, self._minus_one.expand(label.shape))
            return
        spread = self._smoothing.expand(log_p.shape).gather(1, label)
        fit.mul_(1 - spread).add_(spread * log_p.mean(1, keepdim=True))
        log_p.exp_().sub_(spread / log_p.shape[1]).scatter_add_(1, label, spread - 1)

    def focal_factor(self, log_p: torch.Tensor) -> torch.Tensor:
        """Factor that (1 − p)^γ puts on the gradient of −log p: (1 − p)^γ − γ (1 − p)^(γ − 1) p log p."""
        p = log_p.exp()
        rest = (1 - p).clamp_(min=1e-12)  # 0^(γ − 1) may be infinite; log p is 0 there
        return rest**self.focal_gamma - self.focal_gamma * rest ** (self.focal_gamma - 1) * p * log_p

    def losses(
        self, fit: torch.Tensor, label: torch.Tensor, share_of_row: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(T, S) float64 losses of batches, from minus the losses (T, S, 1, B) of their rows."""
        loss = -fit.double() * self._weights(label, share_of_row)
        if self.focal_gamma is not None:
            loss = loss * (1 - fit.double().exp()) ** self.focal_gamma
        return loss.sum(dim=(2, 3))
