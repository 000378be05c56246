"""Many FC layers trained at once: softmax losses and SGD with momentum, with gradients written out.

Heads trained on the same batches are one layer with S · K outputs. The gradient of the logits is a row
coefficient times (softmax − target), or that of `binary.py`, so autograd is not needed. Each feature gets a
1 appended, whose weight is the bias, then zeros up to a whole number of cache lines: every product then has
the same shape, strides and alignment for one head as for that head among many, and so the same bits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from extract.heads.kinds import FullyConnected
from finetune.heads.cuda_graph import RecordedSteps
from finetune.heads.isda import ImplicitSamples
from finetune.heads.options import HeadOptions
from finetune.heads.row_terms import RowTerms, SecondLabel, all_labels
from finetune.heads.step_terms import Course, StepTerms
from finetune.heads.threads import Threads

LINE = 16  # float32 in a cache line
CLASSES_AT_ONCE = 128  # in one matrix product: weights and velocities of 2,048 channels stay in the cache
LEAST_SHARED = 2**18  # fewest weights of a head worth splitting among threads: a handover takes some 50 μs


def padded(values: torch.Tensor) -> torch.Tensor:
    """(…, C) with a 1 appended, then zeros up to a multiple of LINE."""
    out = values.new_zeros(*values.shape[:-1], padded_channels(values.shape[-1]))
    out[..., : values.shape[-1]] = values
    out[..., values.shape[-1]] = 1
    return out


def padded_channels(n_channels: int) -> int:
    """C after padding."""
    return -(-(n_channels + 1) // LINE) * LINE


class StackedHeads:
    """S FC layers of one structure, each trained as torch.optim.SGD would on its loss.

    The velocity is stored multiplied by the learning rate, which saves a pass over the weights per step.

    Attributes:
        options: options of each head.
        weight: (S, K, Cp) float32, for padded features.
        velocity: (S, K, Cp) float32.
    """

    def __init__(
        self,
        options: list[HeadOptions],
        device: torch.device,
        threads: Threads | None = None,
        recorded: RecordedSteps | None = None,
    ):
        self.options = options
        first = options[0]
        self._n_channels = first.weight.shape[1]
        stacked = torch.from_numpy(np.stack([head.weight for head in options]))
        self.weight = padded(stacked).to(device)
        self.weight[:, :, self._n_channels] = torch.from_numpy(np.stack([head.bias for head in options]))
        self.velocity = torch.zeros_like(self.weight)
        self._threads = threads
        self._terms, self._course = RowTerms(options, self.weight), Course(first, device)
        self._implicit = None
        if first.loss.variance is not None:
            self._implicit = ImplicitSamples(options, self.weight, one_size=recorded is not None)
        self._decay = self._of_heads([head.lr * head.weight_decay for head in options])
        self._max_norm = None if first.max_norm is None else self._of_heads([h.max_norm for h in options])
        self._buffers: _Buffers | None = None
        self._recorded = recorded

    def _of_heads(self, values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=self.weight.dtype, device=self.weight.device)[:, None, None]

    def layers(self) -> list[FullyConnected]:
        """The FC layer of each head, copies."""
        c = self._n_channels
        return [FullyConnected(of_head[:, :c].clone(), of_head[:, c].clone()) for of_head in self.weight]

    def state(self) -> list[dict[str, torch.Tensor]]:
        """The state of each head, for `load_state`: copies on the host."""
        pairs = zip(self.weight.cpu(), self.velocity.cpu(), strict=True)
        return [{"weight": weight.clone(), "velocity": velocity.clone()} for weight, velocity in pairs]

    def load_state(self, states: list[dict[str, torch.Tensor]]) -> None:
        """Restore what `state` returned."""
        for name in ("weight", "velocity"):
            getattr(self, name).copy_(torch.stack([state[name] for state in states]))

    def train_on(
        self, pooled: torch.Tensor, label: torch.Tensor, start: int, second: SecondLabel | None = None
    ) -> torch.Tensor:
        """One step on each batch of a window.

        Args:
            pooled: (T, B, Cp) padded features.
            label: (T, B) int64.
            start: iteration of the first batch, counted from 0.
            second: second labels, where rows have two.

        Returns:
            (T, S) float64 loss of each batch before its step.
        """
        n_heads, n_iterations, batch = len(self.options), len(pooled), pooled.shape[1]
        if self._buffers is None or self._buffers.batch != batch:
            self._buffers = _Buffers(self.weight, self.velocity, batch)
        label, share = all_labels(label, second)
        label = label[:, None].expand(n_iterations, n_heads, *label.shape[1:])
        fit = torch.empty(label.shape, dtype=pooled.dtype, device=pooled.device)
        rate = self._terms.rates(label, self._course.shares(start, n_iterations), share)
        arguments = [pooled, label, rate, fit]
        if self._recorded is not None:
            arguments += self._course.recorded(start, n_iterations)
            self._recorded(self._steps, [self.weight, self.velocity], arguments)
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
        """The steps of a window; recorded ones ignore `start` and read `course`, if they differ at all."""
        x = pooled[:, None].expand(len(pooled), len(self.options), *pooled.shape[1:])
        terms = self._course.steps(start, len(pooled), course)
        for step in zip(terms, x.unbind(), label.unbind(), fit.unbind(), rate.unbind(), strict=True):
            self._step(*step)

    def _step(
        self,
        terms: StepTerms,
        x: torch.Tensor,
        label: torch.Tensor,
        fit: torch.Tensor,
        rate: torch.Tensor,
    ) -> None:
        """One step on x (S, B, Cp); for label, rate and fit see `RowTerms.gradient`."""
        buffers = self._buffers
        x_t = x.transpose(1, 2)
        self._each_block(lambda block: torch.bmm(block.weight, x_t, out=block.logits))
        if self._terms.shift is not None:
            buffers.logits.add_(self._terms.shift)
        if self._implicit is not None:
            added = self._implicit.add(buffers.logits, self.weight, label, terms.progress)
        gradient = buffers.log_softmax()
        self._terms.gradient(gradient, label, rate, fit, buffers.logits)
        momentum = terms.momentum
        if self._implicit is not None or torch.is_tensor(momentum):  # a product takes numbers only
            self.velocity.mul_(momentum)
            momentum = 1.0
        if self._implicit is not None:
            added.add_gradient(self.velocity, gradient, self.weight)

        def update(block: "_Block") -> None:
            block.velocity.baddbmm_(block.gradient, x, beta=momentum)
            if self.options[0].weight_decay > 0:
                self._decay_weights(block, terms.share)
            block.weight.sub_(block.velocity)
            if terms.is_cut is not False:
                self._cut(block, terms.is_cut)

        self._each_block(update)

    def _decay_weights(self, block: "_Block", share: float | torch.Tensor) -> None:
        """Add the gradient of the L2 penalty to a velocity."""
        if torch.is_tensor(share):
            block.velocity.addcmul_(block.weight, self._decay * share)
        else:
            block.velocity.addcmul_(block.weight, self._decay, value=share)

    def _cut(self, block: "_Block", is_cut: bool | torch.Tensor) -> None:
        """Shorten weights to `max_norm`; by a tensor, all are kept where it is 0."""
        of_class = block.weight[:, :, : self._n_channels]
        length = torch.linalg.vector_norm(of_class, dim=2, keepdim=True)
        factor = (self._max_norm / length).clamp_(max=1)
        of_class.mul_(torch.maximum(factor, 1 - is_cut) if torch.is_tensor(is_cut) else factor)

    def _each_block(self, work: Callable[["_Block"], None]) -> None:
        blocks = self._buffers.blocks
        if self._threads is None or len(blocks) == 1:
            for block in blocks:
                work(block)
        else:
            self._threads.each(work, blocks)


@dataclass(frozen=True)
class _Block:
    """A block of classes of all heads: views of weights and buffers."""

    weight: torch.Tensor
    velocity: torch.Tensor
    logits: torch.Tensor
    gradient: torch.Tensor


class _Buffers:
    """Buffers that a step writes to, and views of them by blocks of classes.

    Logits are (S, K, B). On a CPU the batch is innermost in memory: softmax over few classes is ten times as
    fast. On a GPU the classes are, for which its fast softmax is made.
    """

    def __init__(self, weight: torch.Tensor, velocity: torch.Tensor, batch: int):
        n_heads, n_classes, _ = weight.shape
        self.batch = batch
        self._classes_innermost = classes_innermost(weight.device)
        if self._classes_innermost:
            self.logits = weight.new_empty(n_heads, batch, n_classes).transpose(1, 2)
        else:
            self.logits = weight.new_empty(n_heads, n_classes, batch)
        self.gradient = torch.empty_like(self.logits)  # of the same strides
        n_blocks = -(-n_classes // CLASSES_AT_ONCE) if weight.device.type == "cpu" else 1
        cuts = [n_classes * i // n_blocks for i in range(n_blocks + 1)]
        slices = [slice(start, stop) for start, stop in pairwise(cuts)]
        self.blocks = [
            _Block(weight[:, block], velocity[:, block], self.logits[:, block], self.gradient[:, block])
            for block in slices
        ]

    def log_softmax(self) -> torch.Tensor:
        """Write log p of the logits over the classes to `gradient`, and return it."""
        if not self._classes_innermost:
            return torch.log_softmax(self.logits, 1, out=self.gradient)
        torch.log_softmax(self.logits.transpose(1, 2), 2, out=self.gradient.transpose(1, 2))
        return self.gradient


def classes_innermost(device: torch.device) -> bool:
    """Whether logits lie in memory class by class within a row, and not row by row within a class."""
    return device.type == "cuda"
