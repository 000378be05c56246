"""Heads that do not fold into one FC layer, trained through autograd.

DisAlign (Zhang et al. 2021) trains what it adds to Phase I's layer, which stays as it is. OLTR (Liu et al.
2019) trains all of its meta-embedding but the centroids: on fixed features, what its authors train them with
pulls each to the mean of its class, where it is from the start.
"""

from typing import Any

import torch

from extract.heads.kinds import Aligned, Layer, MetaEmbedding
from finetune.heads.options import HeadOptions
from finetune.heads.row_terms import RowTerms, SecondLabel, all_labels

# What each is, and the parts that it trains.
DIFFERENTIATED: dict[str, tuple[Any, tuple[str, ...]]] = {
    "alignment": (Aligned, ("logit_scale", "logit_shift", "confidence_weight", "confidence_bias")),
    "meta-embedding": (
        MetaEmbedding,
        ("weight", "memory_weight", "memory_bias", "selector_weight", "selector_bias"),
    ),
}


class DifferentiatedHead:
    """A head of any kind; same interface as `StackedHeads` with one head.

    Attributes:
        layer: the head as it is now.
    """

    def __init__(self, options: HeadOptions, device: torch.device):
        kind, self._trained = DIFFERENTIATED[options.trainable]
        given = {"weight": options.weight, "bias": options.bias} | options.parts
        self.layer: Layer = kind(*(torch.tensor(given[name], device=device) for name in kind._fields))
        for name in self._trained:
            getattr(self.layer, name).requires_grad_()
        self._options, self._n_channels = options, options.weight.shape[1]
        # Velocities are stored multiplied by the learning rate.
        self._velocity = {name: torch.zeros_like(part) for name, part in self._parts().items()}
        self._terms = RowTerms([options], self.layer.weight)

    def _parts(self) -> dict[str, torch.Tensor]:
        """The parts that are trained."""
        return {name: getattr(self.layer, name).detach() for name in self._trained}

    def layers(self) -> list[Layer]:
        """The head, a copy."""
        return [type(self.layer)(*(part.detach().clone() for part in self.layer))]

    def state(self) -> list[dict[str, torch.Tensor]]:
        """The state of the head, for `load_state`: copies on the host."""
        velocity = {f"velocity of {name}": part for name, part in self._velocity.items()}
        return [{name: part.cpu().clone() for name, part in (self._parts() | velocity).items()}]

    def load_state(self, states: list[dict[str, torch.Tensor]]) -> None:
        """Restore what `state` returned."""
        for name, part in self._parts().items():
            part.copy_(states[0][name])
            self._velocity[name].copy_(states[0][f"velocity of {name}"])

    def train_on(
        self, pooled: torch.Tensor, label: torch.Tensor, start: int, second: SecondLabel | None = None
    ) -> torch.Tensor:
        """One step on each batch of a window; see `StackedHeads.train_on`."""
        label, share = all_labels(label, second)
        label = label[:, None]  # of the only head
        fit = torch.empty(label.shape, dtype=pooled.dtype, device=pooled.device)
        rates = self._terms.rates(label, start, share)
        for i in range(len(pooled)):
            self._step(start + i, pooled[i, :, : self._n_channels], label[i], fit[i], rates[i])
        return self._terms.losses(fit, label, share)

    def _step(
        self, iteration: int, x: torch.Tensor, label: torch.Tensor, fit: torch.Tensor, rate: torch.Tensor
    ) -> None:
        """One step on x (B, C); for label, rate and fit see `RowTerms.gradient`."""
        head, trained = self._options, [getattr(self.layer, name) for name in self._trained]
        with torch.enable_grad():
            logits = self.layer.logits(x)
        shifted = logits.detach().T.contiguous()  # (K, B)
        if self._terms.shift is not None:
            shifted += self._terms.shift[0]
        gradient = shifted.log_softmax(0)
        self._terms.gradient(gradient[None], label, rate, fit, shifted[None])
        steps = torch.autograd.grad(logits, trained, gradient.T)
        now, before = head.share_of_lr(iteration), head.share_of_lr(max(iteration - 1, 0))
        for (name, part), step in zip(self._parts().items(), steps, strict=True):
            velocity = self._velocity[name].mul_(head.momentum * now / before).add_(step)
            if head.weight_decay > 0:
                velocity.add_(part, alpha=head.lr * now * head.weight_decay)
            part.sub_(velocity)
