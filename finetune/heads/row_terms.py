"""What losses apply to the rows of a batch: weights, logit shifts, gradient factors."""

from typing import Any

import numpy as np
import torch

from finetune.heads.options import HeadOptions


class RowTerms:
    """What the losses of S stacked heads apply to each row.

    Attributes:
        shift: (S, K, 1) added to the logits, or None.
        focal_gamma: (S, 1, 1), or None.
        against_rest: whether the loss is binary cross-entropy; see `binary_gradient`.
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
        self.against_rest = first.against_rest
        self._lr = torch.tensor([head.lr for head in options], dtype=torch.float64, device=like.device)
        self._dtype = like.dtype

    def _weights(self, label: torch.Tensor) -> torch.Tensor:
        """Weight of each row in the mean over its batch, for labels (T, S, 1, B)."""
        if self._class_weight is None:
            return torch.full((1, 1, 1, 1), 1 / label.shape[3], dtype=torch.float64, device=label.device)
        index = torch.arange(len(self._options), device=label.device)[:, None, None]
        weight = self._class_weight[index, label].double()
        if self._options[0].loss.divide_by_weights:
            return weight / weight.sum(dim=3, keepdim=True)
        return weight / label.shape[3]

    def rates(self, label: torch.Tensor, start: int) -> torch.Tensor:
        """(T, S, 1, B or 1) learning rate times weight of each row; `start` is the first iteration."""
        head = self._options[0]
        share = [head.share_of_lr(iteration) for iteration in range(start, start + len(label))]
        share = torch.tensor(share, dtype=torch.float64, device=label.device)[:, None, None, None]
        return (share * self._lr[:, None, None] * self._weights(label)).to(self._dtype)

    def focal_factor(self, log_p: torch.Tensor) -> torch.Tensor:
        """Factor that (1 − p)^γ puts on the gradient of −log p: (1 − p)^γ − γ (1 − p)^(γ − 1) p log p."""
        p = log_p.exp()
        rest = (1 - p).clamp_(min=1e-12)  # 0^(γ − 1) may be infinite; log p is 0 there
        return rest**self.focal_gamma - self.focal_gamma * rest ** (self.focal_gamma - 1) * p * log_p

    def losses(self, log_p: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(T, S) float64 losses of batches, from log p of the labels (T, S, 1, B) or minus binary losses."""
        loss = -log_p.double() * self._weights(label)
        if self.focal_gamma is not None:
            loss = loss * (1 - log_p.double().exp()) ** self.focal_gamma
        return loss.sum(dim=(2, 3))
