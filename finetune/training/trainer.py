"""Heads that share a plan: one stream of windows, a step of every head on each."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from finetune.config import FinetuneConfig
from finetune.heads.threads import Threads
from finetune.loading.features import Features, HeldOut, load_features, load_held_out
from finetune.loading.residency import Maps, Residency, choose_residency, hold_maps
from finetune.loading.window import WindowMaker
from finetune.methods.registry import METHODS
from finetune.sampling.head_tail import HeadTail
from finetune.training.head_pool import HeadPool
from finetune.training.history import HeadHistory
from finetune.training.inputs import TrainStatistics, head_options, plan_inputs
from finetune.training.loop import Tally, stops_of, train_heads
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

    def hold_maps(self, config: FinetuneConfig) -> int:
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
        drawing: what the plan is drawn from.
        courses: what is known of each head.
    """

    def __init__(self, configs: list[FinetuneConfig], bench: LoadedStore, looks: bool = True):
        """Make the heads ready; without `looks` no accuracies are taken under way."""
        self.configs, self._bench = configs, bench
        first = configs[0]
        sampling = METHODS[first.method].sampling
        self.drawing = plan_inputs(first, bench.store, bench.common)
        self._window = first.window
        if sampling.uses_maps:
            self._window = bench.hold_maps(first)
        self._make = WindowMaker(
            sampling.draw, self.drawing, bench.features, bench.maps if sampling.uses_maps else None
        ).make
        heads = [head_options(config, bench.store, self.drawing, bench.common) for config in configs]
        self._stacks = HeadPool(heads, bench.device, bench.threads)
        self._split = selection_split(bench.held_out, first.select_on) if looks else None
        self.courses = [HeadHistory(rank_by=config.rank_by) for config in configs]
        self._iteration, self._tally = 0, Tally.none(len(configs))

    def begin(self) -> None:
        """Note how every head starts."""
        for course, layer in zip(self.courses, self._stacks.layers(), strict=True):
            course.begin(accuracies(self._split, layer, self._bench.threads), layer)

    def run(self, every: int, tick: Callable[[int], None], look: Callable[[], None]) -> None:
        """Take all steps that are left.

        Args:
            every: iterations between looks at the accuracies.
            tick: told the steps taken after every window.
            look: called after every look.
        """
        first, stops = self.configs[0], stops_of(self.configs[0].iterations, every)

        def count(iteration: int) -> None:
            self._iteration = iteration
            tick(iteration)

        legs = train_heads(
            self._stacks,
            self._make,
            self._iteration,
            stops,
            self._window,
            first.prefetch,
            count,
            self._tally,
        )
        try:
            for leg in legs:
                for head, layer in enumerate(self._stacks.layers()):
                    found = accuracies(self._split, layer, self._bench.threads)
                    self.courses[head].go_on(leg, head, found, layer)
                look()
        finally:
            self._stacks.forget_recordings()

    def layers(self) -> list[Layer]:
        """The head that each configuration keeps: the last, or the best."""
        last = self._stacks.layers()
        return [
            course.best.layer if config.keep == "best" else layer
            for config, course, layer in zip(self.configs, self.courses, last, strict=True)
        ]

    def state(self) -> dict[str, Any]:
        """What `load` goes on from."""
        tally = {name: np.asarray(value).tolist() for name, value in vars(self._tally).items()}
        courses = [course.state() for course in self.courses]
        return {
            "iteration": self._iteration,
            "heads": self._stacks.state(),
            "courses": courses,
            "tally": tally,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._stacks.load(state["heads"])
        self._iteration, tally = state["iteration"], state["tally"]
        self._tally = Tally(
            tally["n_steps"], np.array(tally["loss"]), np.array(tally["n_empty"]), tally["n_augmented"]
        )
        self.courses = [
            HeadHistory.from_state(course, self._bench.device, config.rank_by)
            for course, config in zip(state["courses"], self.configs, strict=True)
        ]

    def facts(self, head: int) -> dict[str, Any]:
        """What a user asks of a head's draws: its classes, and how often an empty set fell back."""
        facts, course = class_facts(self.drawing.head_tail), self.courses[head]
        sampling = METHODS[self.configs[head].method].sampling
        if sampling.facts is not None:
            facts |= sampling.facts(self.drawing, course.n_empty, course.n_augmented)
        if sampling.uses_maps:
            facts["residency"] = asdict(self._bench.residency)
        return facts


def class_facts(head_tail: HeadTail) -> dict[str, Any]:
    """Head and tail classes, for config.json."""
    return {"head_classes": head_tail.head.tolist(), "tail_classes": head_tail.tail.tolist()}
