"""Train all heads that share a plan: one stream of windows, every head trained on each."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from extract.heads.kinds import Layer
from finetune.config import FinetuneConfig
from finetune.heads.threads import Threads
from finetune.loading.drawn_ahead import DrawnAhead, draws_on_device
from finetune.loading.features import Features, HeldOut, load_features, load_held_out
from finetune.loading.later_blocks import LaterBlocks, MapsBeforeLaterBlocks, later_blocks
from finetune.loading.prefetch import prefetched
from finetune.loading.residency import Maps, Residency, choose_residency, hold_maps
from finetune.loading.upload import StepsAhead, beside_steps
from finetune.loading.window import WindowMaker, window_bounds
from finetune.methods.registry import find_sampling
from finetune.run import find_phase1
from finetune.sampling.head_tail import HeadTail
from finetune.training.head_pool import HeadPool
from finetune.training.history import HeadHistory, histories_of, state_of
from finetune.training.inputs import (
    fused_layer,
    head_options,
    maps_of_iteration,
    plan_inputs,
    reads_maps,
)
from finetune.training.pending import PendingLosses, windows_that_wait
from finetune.training.selection import Judge
from finetune.training.statistics import TrainStatistics
from store.reader import FeatureStore


@dataclass
class LoadedStore:
    """A store, loaded for any number of heads.

    Attributes:
        store: the features.
        common: statistics that plans and heads share.
        features: the train split on the device.
        held_out: the val split, if there is one, and test.
        device: where heads are trained.
        threads: threads that train.
        residency, maps: where the feature maps live, and the maps, by the earlier layer that they are of, or
            None for the last one; there once a plan needs them, of one layer at a time.
    """

    store: FeatureStore
    common: TrainStatistics
    features: Features
    held_out: dict[str, HeldOut]
    device: torch.device
    threads: Threads
    residency: dict[str | None, Residency] = field(default_factory=dict)
    maps: dict[str | None, Maps] = field(default_factory=dict)
    _later: dict[str, LaterBlocks] = field(default_factory=dict)

    @classmethod
    def open(
        cls, store: FeatureStore, shot_rule: str, device: torch.device, threads: Threads
    ) -> "LoadedStore":
        """Read everything but the maps."""
        features, held_out = load_features(store, device), load_held_out(store, shot_rule, device)
        return cls(store, TrainStatistics(store, threads), features, held_out, device, threads)

    def store_rows(self, rows: np.ndarray) -> np.ndarray:
        """The rows of the store on the disk that rows of this one are, for messages."""
        return rows

    def check_room(self, configs: Iterable[FinetuneConfig]) -> None:
        """Raise UserError if the maps that a head reads have no room in memory; none are read yet."""
        readers = [config for config in configs if reads_maps(config)]
        for config in {(fused_layer(one), maps_of_iteration(one)): one for one in readers}.values():
            self._residency_for(config).fitting(1, maps_of_iteration(config))

    def _residency_for(self, config: FinetuneConfig) -> Residency:
        layer = fused_layer(config)
        return choose_residency(config.residency, config.memory, self.store, self.device, layer)

    def prepare_maps(self, config: FinetuneConfig) -> int:
        """Load the maps of a layer, once for all heads, in place of another layer's.

        Returns:
            Iterations of a window: `config.window`, or fewer where maps are streamed and memory is short.

        Raises:
            UserError: the maps do not fit or cannot be read.
        """
        layer = fused_layer(config)
        if layer not in self.maps:
            self.maps.clear()
            self.residency.clear()
            self.residency[layer] = self._residency_for(config)
        window = self.residency[layer].fitting(config.window, maps_of_iteration(config))
        if layer not in self.maps:
            held = hold_maps(self.store, self.residency[layer], self.device, layer)
            if layer is not None:
                held = MapsBeforeLaterBlocks(held, self.later(config), self.store.maps(layer).shape[1:])
            self.maps[layer] = held
        return window

    def later(self, config: FinetuneConfig) -> LaterBlocks | None:
        """The blocks behind the layer that is fused; None if that is the last one. Loaded once.

        Raises:
            UserError: Phase I's checkpoint is missing, or the network cannot be run from there on.
        """
        layer = fused_layer(config)
        if layer is not None and layer not in self._later:
            phase1 = find_phase1(self.store, config.ckpt, f"--fuse-after {layer} runs its later blocks")
            self._later[layer] = later_blocks(phase1, layer, self.store, self.device)
        return self._later.get(layer)


class Trainer:
    """Trains heads that share a plan.

    Attributes:
        configs: resolved options of each head.
        inputs: what the plan is drawn from.
        histories: training history of each head, up to the last evaluation or saved state at least.
        iteration: steps taken.
    """

    def __init__(self, configs: list[FinetuneConfig], loaded: LoadedStore, judge: Judge | None = None):
        """Set up the heads; without a judge, metrics hold losses but no accuracies."""
        self.configs, self._loaded = configs, loaded
        first = configs[0]
        sampling = find_sampling(first)
        self.inputs = plan_inputs(first, loaded.store, loaded.common)
        self._window = loaded.prepare_maps(first) if sampling.reads_maps else first.window
        self._layer = fused_layer(first)
        maps = loaded.maps[self._layer] if sampling.reads_maps else None
        draw, drawn_from = sampling.draw, self.inputs
        if draws_on_device(draw, loaded.device, maps):
            draw, drawn_from = DrawnAhead(draw), self.inputs.on(loaded.device)
        self._make = WindowMaker(draw, drawn_from, loaded.features, maps).make
        heads = [head_options(config, loaded.store, self.inputs, loaded.common) for config in configs]
        self._heads = HeadPool(heads, loaded.device, loaded.threads)
        self._judge = judge
        self.histories = [HeadHistory(config.rank_by) for config in configs]
        self._ahead = StepsAhead(loaded.device)
        self._pending = PendingLosses(windows_that_wait(loaded.device))
        self.iteration = 0

    def evaluate(self) -> None:
        """Add a row to every head's metrics; called once before the first step."""
        self._pending.bring_to(self.histories)
        for head, (history, layer) in enumerate(zip(self.histories, self._heads.layers(), strict=True)):
            found = {} if self._judge is None else self._judge(head, self.iteration, layer)
            history.add_row(self.iteration, found, layer)

    def run(self, every: int) -> Iterator[bool]:
        """Take the remaining steps; stop early once all heads are known to have diverged.

        A CPU's losses are known after each window, a GPU's when heads are evaluated or their state is taken.

        Args:
            every: iterations between evaluations.

        Yields:
            After each window: whether the heads were evaluated at its end.

        Raises:
            StoreError: feature maps cannot be read.
        """
        last = self.configs[0].iterations
        bounds = window_bounds(self.iteration, last, self._window, [*range(every, last, every)])
        try:
            made = prefetched(self._make, bounds, self.configs[0].prefetch)
            with beside_steps(self._loaded.device), closing(made) as windows:
                for window in windows:
                    self._pending.add(window, self._heads.train_on(window))
                    self._ahead.asked()
                    self.iteration += len(window.label)
                    is_stop = self.iteration % every == 0 or self.iteration == last
                    if is_stop or self._pending.is_full:
                        self._pending.bring_to(self.histories)
                    all_diverged = all(history.diverged for history in self.histories)
                    evaluates = is_stop or all_diverged
                    if evaluates:
                        self.evaluate()
                    yield evaluates
                    if all_diverged:
                        return
        finally:
            self._heads.free_recordings()

    def layers(self) -> list[Layer]:
        """The layer that each configuration keeps: the last or the best."""
        last = self._heads.layers()
        return [
            history.best.layer if config.keep == "best" else layer
            for config, history, layer in zip(self.configs, self.histories, last, strict=True)
        ]

    def state(self) -> dict[str, Any]:
        """The state of the training, for `load_state`."""
        self._pending.bring_to(self.histories)
        heads = self._heads.state()
        return {"iteration": self.iteration, "heads": heads} | state_of(self.histories)

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self._heads.load_state(state["heads"])
        self.iteration = state["iteration"]
        rank_by = [config.rank_by for config in self.configs]
        self.histories = histories_of(state, rank_by, self._loaded.device)

    def facts(self, head: int) -> dict[str, Any]:
        """Facts of a head for config.json: its classes, and what its method reports of the plan."""
        facts, history = class_facts(self.inputs.head_tail), self.histories[head]
        sampling = find_sampling(self.configs[head])
        if sampling.facts is not None:
            facts |= sampling.facts(self.inputs, history.n_empty, history.n_mixed)
        if sampling.reads_maps:
            facts["residency"] = asdict(self._loaded.residency[self._layer])
        return facts


def class_facts(head_tail: HeadTail) -> dict[str, Any]:
    """Head and tail class ids, for config.json."""
    return {"head_classes": head_tail.head.tolist(), "tail_classes": head_tail.tail.tolist()}
