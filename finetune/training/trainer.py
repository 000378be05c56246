"""Heads that share a plan: one stream of windows, a step of every head on each."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import torch

from finetune.config import FinetuneConfig
from finetune.heads.threads import Threads
from finetune.loading.features import Features, HeldOut, load_features, load_held_out
from finetune.loading.prefetch import prefetched
from finetune.loading.residency import Maps, Residency, choose_residency, hold_maps
from finetune.loading.window import WindowMaker, window_bounds
from finetune.methods.registry import METHODS
from finetune.sampling.head_tail import HeadTail
from finetune.training.head_pool import HeadPool
from finetune.training.history import HeadHistory, histories_of, state_of
from finetune.training.inputs import TrainStatistics, head_options, plan_inputs
from finetune.training.selection import Layer, accuracies, selection_split
from store.reader import FeatureStore


@dataclass
class LoadedStore:
    """A store made ready for any number of heads.

    Attributes:
        store: the features.
        common: what plans are made from.
        features: the train split on the device.
        held_out: val, where there is one, and test.
        device: where heads are trained.
        threads: that take the steps.
        residency, maps: of the feature maps, once a plan has asked for them.
    """

    store: FeatureStore
    common: TrainStatistics
    features: Features
    held_out: dict[str, HeldOut]
    device: torch.device
    threads: Threads
    residency: Residency | None = None
    maps: Maps | None = None

    @classmethod
    def open(
        cls, store: FeatureStore, shot_rule: str, device: torch.device, threads: Threads
    ) -> "LoadedStore":
        """Read all of a store but its maps."""
        features, held_out = load_features(store, device), load_held_out(store, shot_rule, device)
        return cls(store, TrainStatistics(store, threads), features, held_out, device, threads)

    def prepare_maps(self, config: FinetuneConfig) -> int:
        """Put the maps where they are to live, once for all heads; iterations that have room at once.

        Raises:
            UserError: they have no room where they are to live, or cannot be read.
        """
        if self.maps is None:
            self.residency = choose_residency(config.residency, config.memory, self.store, self.device)
        window = self.residency.fitting(config.window, config.n_tail * (1 + config.augmented_per_sample))
        if self.maps is None:
            self.maps = hold_maps(self.store, self.residency, self.device)
        return window


class Trainer:
    """Heads that share a plan, from their start to their last step.

    Attributes:
        configs: resolved options of each head.
        inputs: what the plan is drawn from.
        histories: of each head.
        iteration: steps taken.
    """

    def __init__(self, configs: list[FinetuneConfig], loaded: LoadedStore, looks: bool = True):
        """Make the heads ready; without `looks` no accuracies are taken under way."""
        self.configs, self._loaded = configs, loaded
        first = configs[0]
        sampling = METHODS[first.method].sampling
        self.inputs = plan_inputs(first, loaded.store, loaded.common)
        self._window = loaded.prepare_maps(first) if sampling.reads_maps else first.window
        maps = loaded.maps if sampling.reads_maps else None
        self._make = WindowMaker(sampling.draw, self.inputs, loaded.features, maps).make
        heads = [head_options(config, loaded.store, self.inputs, loaded.common) for config in configs]
        self._heads = HeadPool(heads, loaded.device, loaded.threads)
        self._split = selection_split(loaded.held_out, first.select_on) if looks else None
        self.histories = [HeadHistory(config.rank_by) for config in configs]
        self.iteration = 0

    def begin(self) -> None:
        """Look at how every head starts."""
        self._look()

    def run(self, every: int) -> Iterator[bool]:
        """Take all steps that are left; the last is where all heads have diverged.

        Args:
            every: iterations between looks at the accuracies.

        Yields:
            Of every window whether there was a look at its end.

        Raises:
            StoreError: feature maps cannot be read.
        """
        last = self.configs[0].iterations
        bounds = window_bounds(self.iteration, last, self._window, [*range(every, last, every)])
        try:
            with closing(prefetched(self._make, bounds, self.configs[0].prefetch)) as windows:
                for window in windows:
                    losses = self._heads.take(window)
                    for history, loss in zip(self.histories, losses.T, strict=True):
                        history.add_steps(window, loss)
                    self.iteration += len(losses)
                    hopeless = all(history.diverged for history in self.histories)
                    looks = self.iteration % every == 0 or self.iteration == last or hopeless
                    if looks:
                        self._look()
                    yield looks
                    if hopeless:
                        return
        finally:
            self._heads.forget_recordings()

    def _look(self) -> None:
        for history, layer in zip(self.histories, self._heads.layers(), strict=True):
            history.add_row(self.iteration, accuracies(self._split, layer, self._loaded.threads), layer)

    def layers(self) -> list[Layer]:
        """The layer that each configuration keeps: the last, or the best."""
        last = self._heads.layers()
        return [
            history.best.layer if config.keep == "best" else layer
            for config, history, layer in zip(self.configs, self.histories, last, strict=True)
        ]

    def state(self) -> dict[str, Any]:
        """What `load` goes on from."""
        heads = self._heads.state()
        return {"iteration": self.iteration, "heads": heads} | state_of(self.histories)

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._heads.load(state["heads"])
        self.iteration = state["iteration"]
        rank_by = [config.rank_by for config in self.configs]
        self.histories = histories_of(state, rank_by, self._loaded.device)

    def facts(self, head: int) -> dict[str, Any]:
        """What a user asks of a head's draws: its classes, and how often an empty set fell back."""
        facts, history = class_facts(self.inputs.head_tail), self.histories[head]
        sampling = METHODS[self.configs[head].method].sampling
        if sampling.facts is not None:
            facts |= sampling.facts(self.inputs, history.n_empty, history.n_mixed)
        if sampling.reads_maps:
            facts["residency"] = asdict(self._loaded.residency)
        return facts


def class_facts(head_tail: HeadTail) -> dict[str, Any]:
    """Head and tail classes, for config.json."""
    return {"head_classes": head_tail.head.tolist(), "tail_classes": head_tail.tail.tolist()}
