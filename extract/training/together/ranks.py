"""Processes that train one network together: each computes its rows of every batch.

What the FC layer is given is gathered from all of them, so that each has the logits and the loss of the whole
batch, whatever the loss compares in it; gradients are summed once for each step. So the steps are those of a
single process, but for the rounding of sums and for layers that look at other images, as BatchNorm does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import FunctionCtx

from extract.networks.parts import Network
from store.errors import UserError


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; alone by default.

    Attributes:
        rank: number of this process; that of number 0 writes, prints and evaluates.
        world: number of processes.
        store: where they leave each other texts, a `torch.distributed.Store`; None for one process.
    """

    rank: int = 0
    world: int = 1
    store: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes, prints and evaluates."""
        return self.rank == 0

    def rows(self, n: int) -> slice:
        """This process's rows of a batch of n: consecutive, as many in every process, or one more."""
        share, left = divmod(n, self.world)
        first = self.rank * share + min(self.rank, left)
        return slice(first, first + share + (self.rank < left))

    def gathered(self, own: torch.Tensor, n: int) -> torch.Tensor:
        """The (n, …) rows of a batch, of all processes; gradients go to this process's own.

        Args:
            own: this process's `rows(n)`.
            n: images in the batch.

        Raises:
            UserError: another process is gone.
        """
        return own if self.world == 1 else _Gathered.apply(own, self.rows(n), n)

    def sum_gradients(self, network: Network) -> None:
        """Make the gradients of all processes' rows those of the whole batch, in every process.

        Every process computes the FC layer on the whole batch: its gradients are the batch's already, and
        their mean keeps them equal.

        Args:
            network: after the backward pass of a loss of gathered features.

        Raises:
            UserError: another process is gone.
        """
        if self.world == 1:
            return
        for parameter in network.classifier.parameters():
            if parameter.grad is not None:
                parameter.grad /= self.world
        of_all = [p.grad for p in network.parameters() if p.grad is not None]
        summed = _summed(torch.cat([gradient.flatten() for gradient in of_all]))
        parts = summed.split([gradient.numel() for gradient in of_all])
        for gradient, part in zip(of_all, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def share_gradients(self, network: Network) -> None:
        """Make gradients of whole batches, loaded by every process, those of the processes' rows.

        Args:
            network: with gradients that a single process saved in the middle of a step, if any.
        """
        whole = set(network.classifier.parameters())
        for parameter in network.parameters() if not self.is_first else ():
            if parameter.grad is not None and parameter not in whole:
                parameter.grad.zero_()

    def as_first(self, network: nn.Module) -> None:
        """Give a network in every process the weights and statistics of the first one's."""
        for tensor in network.state_dict().values() if self.world > 1 else ():
            with _together():
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Return once all processes are here."""
        if self.world > 1:
            _summed(torch.zeros(1, device=_device()))

    def any(self, own: bool) -> bool:
        """Whether it is so in any process; all must ask."""
        return own if self.world == 1 else bool(_summed(torch.full((1,), float(own), device=_device())))

    def check_same(self, what: str, own: str) -> None:
        """Raise UserError in every process unless all say the same.

        Args:
            what: they compare, for the message: "options".
            own: what this process says, as many lines in each.
        """
        if self.world == 1:
            return
        self.wait()  # as long as it takes; the store waits for minutes only
        with _together():
            self.store.set(f"train/{what}/{self.rank}", own)
            said = [self.store.get(f"train/{what}/{rank}").decode() for rank in range(self.world)]
        self.wait()  # the first may host the store, and be done
        for rank, theirs in enumerate(said):
            if theirs != said[0]:
                lines = zip(said[0].splitlines(), theirs.splitlines(), strict=True)
                first, other = next(pair for pair in lines if pair[0] != pair[1])
                raise UserError(
                    f"train: process {rank} has {other}, but process 0 has {first}; start all with the same "
                    f"{what}"
                )


ONE_PROCESS = Ranks()


class _Gathered(torch.autograd.Function):
    """Rows of all processes; this process's rows receive their part of the gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, own: torch.Tensor, rows: slice, n: int) -> torch.Tensor:
        ctx.rows = rows
        whole = own.new_zeros((n, *own.shape[1:]))
        whole[rows] = own
        return _summed(whole)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradient[ctx.rows], None, None


def _summed(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of the processes' tensors, in place."""
    with _together():
        dist.all_reduce(tensor)
    return tensor


def _device() -> torch.device:
    on_gpu = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


@contextmanager
def _together() -> Iterator[None]:
    """Errors of torch when another process is gone, as one line."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            "train: another process stopped, or its machine is gone; its message says why; once all have "
            "ended, the same command with --resume continues"
        ) from error
