"""What of a step depends on its iteration: learning rate, momentum, cuts of long weights, growth of ISDA.

Steps that are taken one by one get numbers. Recorded ones run no Python when they are replayed, so they read
tensors, which are filled anew for each window.
"""

from collections.abc import Iterable
from itertools import repeat
from typing import NamedTuple

import torch

from finetune.heads.options import HeadOptions

AHEAD = 1024  # iterations looked up at once: a copy to a GPU waits for the steps before it


class StepTerms(NamedTuple):
    """What of one step depends on its iteration; numbers, or float32 tensors without axes.

    Attributes:
        share: learning rate divided by the initial one.
        momentum: factor of the velocity, which is stored multiplied by the learning rate.
        is_cut: whether weights are cut to `max_norm` afterwards; a tensor is 0 or 1.
        progress: iterations before this one as a share of all.
    """

    share: float | torch.Tensor
    momentum: float | torch.Tensor
    is_cut: bool | torch.Tensor
    progress: float | torch.Tensor


class Course:
    """The terms of every step of heads of one structure."""

    def __init__(self, head: HeadOptions, device: torch.device):
        """Those of one of the heads, with tensors on a device."""
        self._head, self._device = head, device
        self._first = 0
        self._ahead: list[StepTerms] = []  # of the iterations from `_first` on
        self._table = torch.empty(0)  # (iterations ahead, 4) float64, the same numbers

    def shares(self, start: int, n: int) -> torch.Tensor:
        """(n,) float64 learning rates of iterations from `start` on, divided by the initial one."""
        if not self._head.depends_on_iteration:
            return torch.ones(n, dtype=torch.float64, device=self._device)
        return self._window(start, n)[:, 0]

    def recorded(self, start: int, n: int) -> list[torch.Tensor]:
        """What recorded steps read for a window: (n, 4) float32, or nothing where all steps are alike."""
        return [self._window(start, n).float()] if self._head.depends_on_iteration else []

    def steps(self, start: int, n: int, recorded: torch.Tensor | None = None) -> Iterable[StepTerms]:
        """The terms of n steps.

        Args:
            start: iteration of the first, counted from 0.
            n: how many.
            recorded: where recorded steps read them; None for numbers.
        """
        if recorded is not None:
            return map(self._read, recorded.unbind())
        if not self._head.depends_on_iteration:
            return repeat(self._at(0), n)
        self._window(start, n)
        return self._ahead[start - self._first : start - self._first + n]

    def _at(self, iteration: int) -> StepTerms:
        head, share = self._head, self._head.share_of_lr(iteration)
        momentum = head.momentum * share / head.share_of_lr(max(iteration - 1, 0))
        return StepTerms(share, momentum, head.is_cut_after(iteration), iteration / head.n_iterations)

    def _read(self, row: torch.Tensor) -> StepTerms:
        """Terms that are the same in all steps stay numbers, with which a step is faster."""
        first, of_step = self._at(0), StepTerms(*row.unbind())
        if self._head.schedule == "constant":
            of_step = of_step._replace(share=first.share, momentum=first.momentum)
        return of_step if self._head.is_cut_rarely else of_step._replace(is_cut=first.is_cut)

    def _window(self, start: int, n: int) -> torch.Tensor:
        """Rows of the table; looks ahead where it ends."""
        if not self._first <= start <= start + n <= self._first + len(self._ahead):
            stop = max(start + n, min(start + AHEAD, self._head.n_iterations))
            self._first, self._ahead = start, [self._at(i) for i in range(start, stop)]
            self._table = torch.tensor(self._ahead, dtype=torch.float64, device=self._device)
        return self._table[start - self._first : start - self._first + n]
