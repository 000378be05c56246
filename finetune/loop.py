"""The loop of Phase II: windows made ahead, steps in order, a stop now and then to look."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch

from finetune.plan import Plan
from finetune.prefetch import prefetched
from finetune.stacks import Stacks
from finetune.window import Window, window_bounds


@dataclass(frozen=True)
class Divergence:
    """Where a head's loss stopped being a number.

    Attributes:
        iteration: the first, counted from 1.
        rows: of the store, in its batch.
    """

    iteration: int
    rows: np.ndarray


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
    stacks: Stacks,
    make: Callable[[tuple[int, int]], Window],
    start: int,
    stops: list[int],
    window: int,
    depth: int,
    tick: Callable[[int], None],
) -> Iterator[Leg]:
    """Take a step on every batch, and come back at every stop.

    Args:
        stacks: the heads.
        make: makes a window from its bounds.
        start: steps taken already.
        stops: iterations to come back at, ascending; the last ends it.
        window: iterations put together at once, at most.
        depth: windows made ahead.
        tick: told the steps taken after every window.

    Raises:
        StoreError: feature maps cannot be read.
    """
    ahead = [stop for stop in stops if stop > start]
    if not ahead:
        return
    diverged: list[Divergence | None] = [None] * stacks.n_heads
    losses, n_empty, n_augmented = [], np.zeros(2, np.int64), 0
    bounds = window_bounds(start, ahead[-1], window, ahead)
    with closing(prefetched(make, bounds, depth)) as windows:
        for made in windows:
            losses.append(stacks.take(made))
            n_empty, n_augmented = n_empty + made.n_empty, n_augmented + made.plan.donor_row.size
            _note_divergence(losses[-1], made.plan, made.start, diverged)
            iteration = made.start + len(made.label)
            tick(iteration)
            if iteration in ahead:
                loss = torch.cat(losses).mean(dim=0).numpy()
                yield Leg(iteration, loss, n_empty, n_augmented, list(diverged))
                losses, n_empty, n_augmented = [], np.zeros(2, np.int64), 0


def _note_divergence(losses: torch.Tensor, plan: Plan, start: int, diverged: list[Divergence | None]) -> None:
    finite = losses.isfinite()
    if bool(finite.all()):
        return
    for head in range(len(diverged)):
        bad = torch.nonzero(~finite[:, head])
        if len(bad) and diverged[head] is None:
            t = int(bad[0, 0])
            diverged[head] = Divergence(start + t + 1, plan.row[t])
