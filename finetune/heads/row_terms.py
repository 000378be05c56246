"""What losses apply to the rows of a batch: weights, logit shifts, gradient factors."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from finetune.heads.binary import binary_gradient
from finetune.heads.options import HeadOptions


@dataclass(frozen=True)
class SecondLabel:
    """A second label of each row, for samples that are mixed of two.

    Attributes:
        label: (T, B) int64.
        share: (T, B) float64 its share of the row, the rest being that of the first label.
    """

    label: torch.Tensor
    share: torch.Tensor


def all_labels(label: torch.Tensor, second: SecondLabel | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(T, R, B) labels of each row, and their shares; None where it has one, R = 1."""
    if second is None:
        return label[:, None], None
    return torch.stack([label, second.label], 1), torch.stack([1 - second.share, second.share], 1)


class RowTerms:
    """What the losses of S stacked heads apply to each row.

    Attributes:
        shift: (S, K, 1) added to the logits, or None.
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
        self._focal_gamma = stacked(focal)
        self._against_rest = first.against_rest
        smoothing = [None if h.loss.smoothing is None else h.loss.smoothing[:, None] for h in options]
        self._smoothing = stacked(smoothing)
        self._minus_one = like.new_tensor(-1.0)
        self._lr = torch.tensor([head.lr for head in options], dtype=torch.float64, device=like.device)
        self._dtype = like.dtype

    def _weights(self, label: torch.Tensor, share: torch.Tensor | None) -> torch.Tensor:
        """(T, S or 1, R, B) float64 weights of rows in the mean over their batch, for labels (T, S, R, B)."""
        ones = torch.ones(1, 1, 1, dtype=torch.float64, device=label.device)
        weight = (ones if share is None else share)[:, None]
        if self._class_weight is None:
            return weight / label.shape[3]
        index = torch.arange(len(self._options), device=label.device)[:, None, None]
        weight = self._class_weight[index, label].double() * weight
        by_weights = self._options[0].loss.divide_by_weights
        return weight / (weight.sum(dim=(2, 3), keepdim=True) if by_weights else label.shape[3])

    def rates(self, label: torch.Tensor, of_lr: torch.Tensor, share: torch.Tensor | None) -> torch.Tensor:
        """Learning rate times weight of each row.

        Args:
            label: (T, S, R, B) labels of each row.
            of_lr: (T,) float64 learning rates of the steps, divided by the initial one.
            share: (T, R, B) float64 shares of a row's labels; None if it has one, R = 1.

        Returns:
            (T, S, R, B), or (T, S, 1, 1) if all rows have the same.
        """
        return (of_lr[:, None, None, None] * self._lr[:, None, None] * self._weights(label, share)).to(
            self._dtype
        )

    def gradient(
        self,
        log_p: torch.Tensor,
        label: torch.Tensor,
        rate: torch.Tensor,
        fit: torch.Tensor,
        spare: torch.Tensor,
    ) -> None:
        """Replace log p by the gradient of the logits times the learning rate, and write −loss to `fit`.

        Args:
            log_p: (S, K, B) log p of every class; overwritten.
            label: (S, R, B) int64 labels of each row.
            rate: (S, R, B) or (S, 1, 1); see `rates`.
            fit: (S, R, B) output: minus the loss of a row for each label, without its weight.
            spare: (S, K, B) scratch memory.
        """
        parts = [log_p, *(log_p.clone() for _ in range(1, label.shape[1]))]
        for r, part in enumerate(parts):
            of_label, of_rate, of_fit = (every[:, r : r + 1] for every in (label, rate, fit))
            self._of_one_label(part, of_label, of_fit, spare)
            part.mul_(of_rate if self._focal_gamma is None else of_rate * self._focal_factor(of_fit))
        for part in parts[1:]:
            log_p.add_(part)

    def _of_one_label(
        self, log_p: torch.Tensor, label: torch.Tensor, fit: torch.Tensor, spare: torch.Tensor
    ) -> None:
        """Replace log p by the gradient of each row's loss for its label (S, 1, B), without weights."""
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

    def _focal_factor(self, log_p: torch.Tensor) -> torch.Tensor:
        """Factor that (1 − p)^γ puts on the gradient of −log p: (1 − p)^γ − γ (1 − p)^(γ − 1) p log p."""
        p = log_p.exp()
        rest = (1 - p).clamp_(min=1e-12)  # 0^(γ − 1) may be infinite; log p is 0 there
        return rest**self._focal_gamma - self._focal_gamma * rest ** (self._focal_gamma - 1) * p * log_p

    def losses(self, fit: torch.Tensor, label: torch.Tensor, share: torch.Tensor | None) -> torch.Tensor:
        """(T, S) float64 losses of batches, from what `gradient` wrote; see `rates`."""
        loss = -fit.double() * self._weights(label, share)
        if self._focal_gamma is not None:
            loss = loss * (1 - fit.double().exp()) ** self._focal_gamma
        return loss.sum(dim=(2, 3))
