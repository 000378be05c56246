"""The loop of Phase II: windows made ahead, steps in order, a stop now and then to look."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch

from finetune.loading.prefetch import prefetched
from finetune.loading.window import Window, window_bounds
from finetune.sampling.plan import Plan
from finetune.training.head_pool import HeadPool


@dataclass(frozen=True)
class Divergence:
    """Where a head's loss stopped being a number.

    Attributes:
        iteration: the first, counted from 1.
        rows: of the store, in its batch.
    """

    iteration: int
    rows: np.ndarray


@dataclass
class Tally:
    """What adds up between two stops; part of a state that is gone on with.

    Attributes:
        n_steps: steps taken.
        loss: (S,) float64 sum of the heads' losses.
        n_empty: augmented samples whose class-specific, and class-generic set was empty.
        n_augmented: augmented samples.
    """

    n_steps: int
    loss: np.ndarray
    n_empty: np.ndarray
    n_augmented: int

    @classmethod
    def none(cls, n_heads: int) -> "Tally":
        """Before the first step."""
        return cls(0, np.zeros(n_heads), np.zeros(2, np.int64), 0)

    def add(self, losses: torch.Tensor, made: Window) -> None:
        """Add a window's losses (T, S), one by one, so that the sum does not depend on its length."""
        for loss in losses.numpy():
            self.loss = self.loss + loss
        self.n_steps += len(losses)
        self.n_empty = self.n_empty + made.n_empty
        self.n_augmented += made.n_mixed


@dataclass(frozen=True)
class Leg:
    """What happened between two stops.

    Attributes:
        iteration: at its end: the number of steps taken.
        loss: (S,) mean loss of the heads in it.
        n_empty: augmented samples whose class-specific, and class-generic set was empty.
        n_augmented: augmented samples.
        diverged: of each head, None while its loss is finite.
    """

    iteration: int
    loss: np.ndarray
    n_empty: np.ndarray
    n_augmented: int
    diverged: list[Divergence | None]


def stops_of(n_iterations: int, every: int) -> list[int]:
    """Iterations to stop at: every so many, and the last."""
    return [*range(every, n_iterations, every), n_iterations]


def train_heads(
    stacks: HeadPool,
    make: Callable[[tuple[int, int]], Window],
    start: int,
    stops: list[int],
    window: int,
    depth: int,
    tick: Callable[[int], None],
    tally: Tally,
) -> Iterator[Leg]:
    """Take a step on every batch, and come back at every stop; the last is where all heads have diverged.

    Args:
        stacks: the heads.
        make: makes a window from its bounds.
        start: steps taken already.
        stops: iterations to come back at, ascending; the last ends it.
        window: iterations put together at once, at most.
        depth: windows made ahead.
        tick: told the steps taken after every window.
        tally: of the steps since the last stop.

    Raises:
        StoreError: feature maps cannot be read.
    """
    ahead = [stop for stop in stops if stop > start]
    looked_at = set(ahead)
    if not ahead:
        return
    diverged: list[Divergence | None] = [None] * stacks.n_heads
    bounds = window_bounds(start, ahead[-1], window, ahead)
    with closing(prefetched(make, bounds, depth)) as windows:
        for made in windows:
            losses = stacks.take(made)
            tally.add(losses, made)
            _note_divergence(losses, made.plan, made.start, diverged)
            iteration = made.start + len(made.label)
            hopeless = None not in diverged
            if iteration in looked_at or hopeless:
                loss = tally.loss / tally.n_steps
                yield Leg(iteration, loss, tally.n_empty, tally.n_augmented, list(diverged))
                vars(tally).update(vars(Tally.none(stacks.n_heads)))
            tick(iteration)
            if hopeless:
                return


def _note_divergence(losses: torch.Tensor, plan: Plan, start: int, diverged: list[Divergence | None]) -> None:
    finite = losses.isfinite()
    if bool(finite.all()):
        return
    for head in range(len(diverged)):
        bad = torch.nonzero(~finite[:, head])
        if len(bad) and diverged[head] is None:
            t = int(bad[0, 0])
            diverged[head] = Divergence(start + t + 1, plan.row[t])
