"""Learnable weight scaling (Kang et al. 2020): one factor per class logit, the FC layer frozen."""

import torch

from finetune.heads.binary import binary_gradient
from finetune.heads.options import HeadOptions
from finetune.heads.row_terms import RowTerms
from finetune.heads.stacked import padded


class ScaledHead:
    """A frozen FC layer with trained logit scales; same interface as `StackedHeads` with one head.

    Attributes:
        scale: (K,) float32.
        velocity: (K,) float32, multiplied by the learning rate.
    """

    def __init__(self, options: HeadOptions, device: torch.device):
        self._options = options
        self._weight = torch.tensor(options.weight, device=device)
        self._bias = torch.tensor(options.bias, device=device)
        frozen = padded(self._weight)
        frozen[:, self._weight.shape[1]] = self._bias
        self._frozen = frozen
        self.scale = torch.ones_like(self._bias)
        self.velocity = torch.zeros_like(self._bias)
        self._terms = RowTerms([options], self._weight)

    def layers(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The FC layer with the scales multiplied in: weight (K, C) and bias (K,)."""
        return [(self._weight * self.scale[:, None], self._bias * self.scale)]

    def state(self) -> list[dict[str, torch.Tensor]]:
        """The state of the head, for `load_state`."""
        return [{"scale": self.scale.cpu().clone(), "velocity": self.velocity.cpu().clone()}]

    def load_state(self, states: list[dict[str, torch.Tensor]]) -> None:
        """Restore what `state` returned."""
        self.scale.copy_(states[0]["scale"])
        self.velocity.copy_(states[0]["velocity"])

    def train_on(self, pooled: torch.Tensor, label: torch.Tensor, start: int) -> torch.Tensor:
        """One step on each batch of a window; see `StackedHeads.train_on`."""
        label = label[:, None, None]
        log_p = torch.empty(label.shape, dtype=pooled.dtype, device=pooled.device)
        rates = self._terms.rates(label, start)
        for i in range(len(pooled)):
            self._step(start + i, pooled[i], label[i, 0], log_p[i, 0], rates[i, 0])
        return self._terms.losses(log_p, label)

    def _step(
        self, iteration: int, x: torch.Tensor, label: torch.Tensor, log_p: torch.Tensor, rate: torch.Tensor
    ) -> None:
        head = self._options
        unscaled = self._frozen @ x.T  # (K, B)
        logits = unscaled * self.scale[:, None]
        if self._terms.shift is not None:
            logits += self._terms.shift[0]
        gradient = logits.log_softmax(0)
        if self._terms.against_rest:
            binary_gradient(gradient[None], label[None], log_p[None], logits[None])
        else:
            torch.gather(gradient, 0, label, out=log_p)
            gradient.exp_().scatter_add_(0, label, gradient.new_tensor(-1.0).expand(label.shape))
        if self._terms.focal_gamma is not None:
            rate = rate * self._terms.focal_factor(log_p[None])[0]
        share, before = head.share_of_lr(iteration), head.share_of_lr(max(iteration - 1, 0))
        self.velocity.mul_(head.momentum * share / before).add_((gradient * rate * unscaled).sum(dim=1))
        if head.weight_decay > 0:
            self.velocity.add_(self.scale, alpha=head.lr * share * head.weight_decay)
        self.scale.sub_(self.velocity)
