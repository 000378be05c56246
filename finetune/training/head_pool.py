"""All heads that share a plan, stacked where possible and spread over threads."""

from itertools import pairwise

import numpy as np
import torch

from extract.heads.kinds import Layer
from finetune.heads.cuda_graph import RecordedSteps, recorded_on
from finetune.heads.differentiated import DIFFERENTIATED, DifferentiatedHead, LearnedHead
from finetune.heads.few_shot import FewShotHead
from finetune.heads.options import HeadOptions
from finetune.heads.scaled import ScaledHead
from finetune.heads.stacked import LEAST_SHARED, StackedHeads
from finetune.heads.threads import Threads
from finetune.loading.window import Window

STATE_BYTES = 2**20  # weights and velocities of a stack: this much stays in a core's cache between steps


class HeadPool:
    """Heads that are trained on the same windows.

    Heads of one structure are stacked. On a CPU a stack fits a core's cache, and each thread trains whole
    stacks; a single large head is split among the threads by class. None of this changes a bit of the result.

    Attributes:
        n_heads: number of heads.
    """

    def __init__(self, options: list[HeadOptions], device: torch.device, threads: Threads):
        self.n_heads = len(options)
        self._threads = threads
        alike: dict[tuple, list[int]] = {}
        for i, head in enumerate(options):
            alike.setdefault(head.structure, []).append(i)
        self._members = [
            part for members in alike.values() for part in _parts(members, options, device, threads.n)
        ]
        # Where each head is among those of all stacks; there once, lest each window wait for a GPU.
        self._places = torch.from_numpy(np.argsort(np.concatenate(self._members))).to(device)
        alone = len(self._members) == 1 and device.type == "cpu"
        self._recorded = recorded_on(device)
        self._heads = [
            _stack([options[i] for i in members], device, threads if alone else None, self._recorded)
            for members in self._members
        ]

    def train_on(self, window: Window) -> torch.Tensor:
        """One step of every head on each batch of a window.

        Returns:
            (T, S) float64 loss of each batch before its step, on the device.
        """
        window.arrive()
        losses = [torch.empty(0)] * len(self._heads)

        def train_stack(stack: int) -> None:
            batches = window.pooled, window.label, window.start, window.second
            losses[stack] = self._heads[stack].train_on(*batches)

        if len(self._heads) == 1 or window.pooled.is_cuda:  # a process may record one graph at a time
            for stack in range(len(self._heads)):
                train_stack(stack)
        else:
            self._threads.each(train_stack, range(len(self._heads)))
        return losses[0] if len(losses) == 1 else torch.cat(losses, 1).index_select(1, self._places)

    def free_recordings(self) -> None:
        """Free the GPU memory of recorded steps; the next window records them again."""
        if self._recorded is not None:
            self._recorded.clear()

    def layers(self) -> list[Layer]:
        """Every head as it is now."""
        return self._in_order([heads.layers() for heads in self._heads])

    def state(self) -> list[dict[str, torch.Tensor]]:
        """The state of every head, for `load_state`."""
        return self._in_order([heads.state() for heads in self._heads])

    def load_state(self, states: list[dict[str, torch.Tensor]]) -> None:
        """Restore every head from what `state` returned."""
        for members, heads in zip(self._members, self._heads, strict=True):
            heads.load_state([states[i] for i in members])

    def _in_order(self, of_stacks: list[list]) -> list:
        found = [None] * self.n_heads
        for members, values in zip(self._members, of_stacks, strict=True):
            for i, value in zip(members, values, strict=True):
                found[i] = value
        return found


def _stack(
    heads: list[HeadOptions], device: torch.device, threads: Threads | None, recorded: RecordedSteps | None
) -> StackedHeads | ScaledHead | LearnedHead:
    if heads[0].trainable == "weight generator":
        return FewShotHead(heads[0], device)
    if heads[0].trainable in DIFFERENTIATED:
        return DifferentiatedHead(heads[0], device)
    if heads[0].trainable != "fc":
        return ScaledHead(heads[0], device, recorded)
    large = heads[0].weight.size >= LEAST_SHARED
    return StackedHeads(heads, device, threads if large else None, recorded)


def _parts(
    members: list[int], options: list[HeadOptions], device: torch.device, n_threads: int
) -> list[list[int]]:
    """Heads of one structure, split into stacks: one on a GPU, several that fit the caches on a CPU."""
    if options[members[0]].trainable != "fc":
        return [[i] for i in members]
    if device.type != "cpu":
        return [members]
    fitting = max(1, STATE_BYTES // (2 * options[members[0]].weight.nbytes))
    n_parts = min(len(members), max(n_threads, -(-len(members) // fitting)))
    cuts = np.linspace(0, len(members), n_parts + 1).astype(int)
    return [members[start:stop] for start, stop in pairwise(cuts)]
