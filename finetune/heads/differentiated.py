"""Heads that do not fold into one FC layer, trained through autograd.

DisAlign (Zhang et al. 2021) trains what it adds to Phase I's layer, which stays as it is. OLTR (Liu et al.
2019) trains all of its meta-embedding but the centroids: on fixed features, what its authors train them with
pulls each to the mean of its class, where it is from the start.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch

from extract.heads.kinds import Aligned, Layer, MetaEmbedding
from finetune.heads.options import HeadOptions
from finetune.heads.row_terms import RowTerms, SecondLabel, all_labels
from finetune.heads.step_terms import Course, StepTerms

# What each is, and the parts that it trains.
DIFFERENTIATED: dict[str, tuple[Any, tuple[str, ...]]] = {
    "alignment": (Aligned, ("logit_scale", "logit_shift", "confidence_weight", "confidence_bias")),
    "meta-embedding": (
        MetaEmbedding,
        ("weight", "memory_weight", "memory_bias", "selector_weight", "selector_bias"),
    ),
}


class LearnedHead(ABC):
    """A head that is trained through autograd; same interface as `StackedHeads` with one head.

    Attributes:
        trained: the parts that are trained, by name.
    """

    def __init__(self, options: HeadOptions, trained: dict[str, torch.Tensor]):
        self.trained = {name: part.requires_grad_() for name, part in trained.items()}
        self._options, self._n_channels = options, options.weight.shape[1]
        # Velocities are stored multiplied by the learning rate.
        self._velocity = {name: torch.zeros_like(part).detach() for name, part in trained.items()}
        like = next(iter(trained.values())).detach()
        self._terms, self._course = RowTerms([options], like), Course(options, like.device)

    @abstractmethod
    def layers(self) -> list[Layer]:
        """The head, a copy."""

    @abstractmethod
    def logits(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(B, K) of the rows of a batch that are classified, from x (B, C) and label (B,)."""

    def classified(self, label: torch.Tensor) -> torch.Tensor:
        """The labels of the rows that are classified: all."""
        return label

    def state(self) -> list[dict[str, torch.Tensor]]:
        """The state of the head, for `load_state`: copies on the host."""
        values = {name: part.detach() for name, part in self.trained.items()}
        values |= {f"velocity of {name}": part for name, part in self._velocity.items()}
        return [{name: value.cpu().clone() for name, value in values.items()}]

    @torch.no_grad()
    def load_state(self, states: list[dict[str, torch.Tensor]]) -> None:
        """Restore what `state` returned."""
        for name, part in self.trained.items():
            part.copy_(states[0][name])
            self._velocity[name].copy_(states[0][f"velocity of {name}"])

    def train_on(
        self, pooled: torch.Tensor, label: torch.Tensor, start: int, second: SecondLabel | None = None
    ) -> torch.Tensor:
        """One step on each batch of a window; see `StackedHeads.train_on`."""
        of_rows, share = all_labels(self.classified(label), second)
        of_rows = of_rows[:, None]  # of the only head
        fit = torch.empty(of_rows.shape, dtype=pooled.dtype, device=pooled.device)
        rates = self._terms.rates(of_rows, self._course.shares(start, len(pooled)), share)
        for i, terms in enumerate(self._course.steps(start, len(pooled))):
            with torch.enable_grad():
                logits = self.logits(pooled[i, :, : self._n_channels], label[i])
            self._step(terms, logits, of_rows[i], fit[i], rates[i])
        return self._terms.losses(fit, of_rows, share)

    def _step(
        self,
        terms: StepTerms,
        logits: torch.Tensor,
        label: torch.Tensor,
        fit: torch.Tensor,
        rate: torch.Tensor,
    ) -> None:
        """One step, from the logits (B, K) of a batch; for label, rate and fit see `RowTerms.gradient`."""
        head = self._options
        shifted = logits.detach().T.contiguous()  # (K, B)
        if self._terms.shift is not None:
            shifted += self._terms.shift[0]
        gradient = shifted.log_softmax(0)
        self._terms.gradient(gradient[None], label, rate, fit, shifted[None])
        steps = torch.autograd.grad(logits, list(self.trained.values()), gradient.T)
        for (name, part), step in zip(self.trained.items(), steps, strict=True):
            part, velocity = part.detach(), self._velocity[name]
            velocity.mul_(terms.momentum).add_(step)
            if head.weight_decay > 0:
                velocity.add_(part, alpha=head.lr * terms.share * head.weight_decay)
            part.sub_(velocity)


class DifferentiatedHead(LearnedHead):
    """A head of a kind in DIFFERENTIATED."""

    def __init__(self, options: HeadOptions, device: torch.device):
        kind, names = DIFFERENTIATED[options.trainable]
        given = {"weight": options.weight, "bias": options.bias} | options.parts
        self._layer: Layer = kind(*(torch.tensor(given[name], device=device) for name in kind._fields))
        super().__init__(options, {name: getattr(self._layer, name) for name in names})

    def layers(self) -> list[Layer]:
        """The head, a copy."""
        return [type(self._layer)(*(part.detach().clone() for part in self._layer))]

    def logits(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(B, K) of a batch, from x (B, C)."""
        return self._layer.logits(x)
