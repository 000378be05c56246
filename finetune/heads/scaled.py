"""Heads that rescale the logits of an FC layer: by scales alone, with margins, or with the layer trained too.

Logit k is a_k · z_k + b_k · ‖w_k‖ with z = W x + bias, where a = 1 and b = 0 at the start. Learnable weight
scaling (Kang et al. 2020) trains a, margin calibration (MARC, Wang et al. 2022) a and b, and the second stage
of MiSLAS (Zhong et al. 2021) a and, at its own learning rate, W and bias. All fold into one FC layer.
"""

import torch

from extract.heads.kinds import FullyConnected
from finetune.heads.cuda_graph import RecordedSteps
from finetune.heads.options import HeadOptions
from finetune.heads.row_terms import RowTerms, SecondLabel, all_labels
from finetune.heads.stacked import classes_innermost, padded
from finetune.heads.step_terms import Course, StepTerms

# What each kind trains, in the order of a step.
TRAINED = {"scales": ("scale",), "margins": ("scale", "margin"), "scales and fc": ("scale", "layer")}


class ScaledHead:
    """An FC layer with trained scales; same interface as `StackedHeads` with one head.

    Attributes:
        scale: (K,) float32, a.
        margin: (K,) float32, b.
        layer: (K, Cp) float32, W and the bias, for padded features.
    """

    def __init__(self, options: HeadOptions, device: torch.device, recorded: RecordedSteps | None = None):
        self._options = options
        self._n_channels = options.weight.shape[1]
        weight = torch.tensor(options.weight, device=device)
        self.layer = padded(weight)
        self.layer[:, self._n_channels] = torch.tensor(options.bias, device=device)
        self.scale = torch.ones(len(weight), dtype=weight.dtype, device=device)
        self.margin = torch.zeros_like(self.scale)
        self._norm = torch.linalg.vector_norm(weight, dim=1)
        self._trained = TRAINED[options.trainable]
        # Velocities are stored multiplied by the learning rate.
        self._velocity = {name: torch.zeros_like(getattr(self, name)) for name in self._trained}
        self._lr_share = {"layer": options.fc_lr_share}  # of the learning rate
        self._terms, self._course = RowTerms([options], weight), Course(options, device)
        self._recorded, self._classes_innermost = recorded, classes_innermost(device)

    def layers(self) -> list[FullyConnected]:
        """The FC layer with scales and margins folded in."""
        weight, bias = self.layer[:, : self._n_channels], self.layer[:, self._n_channels]
        bias = bias * self.scale
        if "margin" in self._trained:
            bias = bias + self.margin * self._norm
        return [FullyConnected(weight * self.scale[:, None], bias)]

    def state(self) -> list[dict[str, torch.Tensor]]:
        """The state of the head, for `load_state`: copies on the host."""
        values = {name: getattr(self, name).cpu().clone() for name in self._trained}
        return [values | {_kept(name): self._velocity[name].cpu().clone() for name in self._trained}]

    def load_state(self, states: list[dict[str, torch.Tensor]]) -> None:
        """Restore what `state` returned."""
        for name in self._trained:
            getattr(self, name).copy_(states[0][name])
            self._velocity[name].copy_(states[0][_kept(name)])

    def train_on(
        self, pooled: torch.Tensor, label: torch.Tensor, start: int, second: SecondLabel | None = None
    ) -> torch.Tensor:
        """One step on each batch of a window; see `StackedHeads.train_on`."""
        label, share = all_labels(label, second)
        label = label[:, None]  # of the only head
        fit = torch.empty(label.shape, dtype=pooled.dtype, device=pooled.device)
        rate = self._terms.rates(label, self._course.shares(start, len(pooled)), share)
        arguments = [pooled, label, rate, fit]
        if self._recorded is not None:
            state = [getattr(self, name) for name in self._trained] + [*self._velocity.values()]
            self._recorded(self._steps, state, [*arguments, *self._course.recorded(start, len(pooled))])
        else:
            self._steps(*arguments, start=start)
        return self._terms.losses(fit, label, share)

    def _steps(
        self,
        pooled: torch.Tensor,
        label: torch.Tensor,
        rate: torch.Tensor,
        fit: torch.Tensor,
        course: torch.Tensor | None = None,
        start: int = 0,
    ) -> None:
        """The steps of a window; see `StackedHeads`."""
        terms = self._course.steps(start, len(pooled), course)
        for step in zip(terms, pooled, label, fit, rate, strict=True):
            self._step(*step)

    def _step(
        self, terms: StepTerms, x: torch.Tensor, label: torch.Tensor, fit: torch.Tensor, rate: torch.Tensor
    ) -> None:
        """One step on x (B, Cp); for label, rate and fit see `RowTerms.gradient`."""
        head = self._options
        unscaled = self._unscaled(x)
        logits = unscaled * self.scale[:, None]
        if "margin" in self._trained:
            logits += (self.margin * self._norm)[:, None]
        if self._terms.shift is not None:
            logits += self._terms.shift[0]
        gradient = logits.T.log_softmax(1).T if self._classes_innermost else logits.log_softmax(0)
        self._terms.gradient(gradient[None], label, rate, fit, logits[None])
        of_each = {name: self._gradient(name, gradient, unscaled, x) for name in self._trained}
        for name, step in of_each.items():
            value, velocity, of_lr = getattr(self, name), self._velocity[name], self._lr_share.get(name, 1.0)
            velocity.mul_(terms.momentum).add_(step, alpha=of_lr)
            if head.weight_decay > 0:
                self._decay(value, velocity, of_lr * head.lr, terms.share)
            value.sub_(velocity)

    def _unscaled(self, x: torch.Tensor) -> torch.Tensor:
        """(K, B) logits without scales, in memory as those of `StackedHeads` are."""
        return (x @ self.layer.T).T if self._classes_innermost else self.layer @ x.T

    def _decay(
        self, value: torch.Tensor, velocity: torch.Tensor, lr: float, share: float | torch.Tensor
    ) -> None:
        """Add the gradient of the L2 penalty to a velocity."""
        decay = self._options.weight_decay
        if torch.is_tensor(share):
            velocity.addcmul_(value, share, value=lr * decay)
        else:
            velocity.add_(value, alpha=lr * share * decay)

    def _gradient(
        self, name: str, gradient: torch.Tensor, unscaled: torch.Tensor, x: torch.Tensor
    ) -> torch.Tensor:
        """The gradient of what is trained, from that of the logits (K, B)."""
        if name == "scale":
            return (gradient * unscaled).sum(dim=1)
        if name == "margin":
            return gradient.sum(dim=1) * self._norm
        return (gradient * self.scale[:, None]) @ x


def _kept(name: str) -> str:
    """The name of a velocity in the state; that of the scales is older than the others."""
    return "velocity" if name == "scale" else f"{name}_velocity"
