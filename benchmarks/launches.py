"""How many operations a window of fine-tuning asks a GPU for: its draw, its batches, and its steps.

Usage: python benchmarks/launches.py STORE [METHOD]..., counted on a CPU with what a GPU would be given. Views
cost a GPU nothing and are not counted; every other operation is one launch at least. The steps of a window
are recorded, and launched together.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from finetune.config import FinetuneConfig
from finetune.heads.cuda_graph import RecordedSteps
from finetune.heads.stacked import StackedHeads
from finetune.heads.threads import Threads
from finetune.loading.drawn_ahead import DrawnAhead, iterations_at_once
from finetune.loading.window import assemble
from finetune.methods.registry import find_sampling
from finetune.training.inputs import head_options, plan_inputs
from finetune.training.trainer import LoadedStore
from store.reader import FeatureStore

CPU, WINDOW = torch.device("cpu"), 64
METHODS = ("fsa", "fsa+balanced-softmax", "h2t", "mixup", "tailcalib", "balanced-softmax")
FREE = {
    "_reshape_alias",
    "_unsafe_view",
    "alias",
    "as_strided",
    "detach",
    "empty",
    "empty_like",
    "empty_strided",
    "expand",
    "lift_fresh",
    "new_empty",
    "permute",
    "select",
    "slice",
    "split",
    "squeeze",
    "t",
    "transpose",
    "unbind",
    "unsqueeze",
    "view",
}


class Launches(TorchDispatchMode):
    """Counts operations that move or change numbers.

    Attributes:
        counted: how often each was asked for.
    """

    def __init__(self):
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = function.overloadpacket.__name__
        if name not in FREE:
            self.counted[name] += 1
        return function(*args, **(kwargs or {}))

    @property
    def n(self) -> int:
        """All of them."""
        return self.counted.total()


def of_window(store: FeatureStore, method: str) -> dict[str, int]:
    """Launches of a draw, and of the draws, batches and steps of a window, where a GPU holds the maps."""
    config = FinetuneConfig(store=str(store.path), method=method, window=WINDOW)
    config = config.resolved(len(store.class_names))
    loaded = LoadedStore.open(store, config.shot_rule, CPU, Threads(1))
    sampling, inputs = find_sampling(config), plan_inputs(config, store, loaded.common)
    if sampling.reads_maps:
        loaded.prepare_maps(config)
    there = inputs.on(CPU)
    with Launches() as drawing:
        plan = DrawnAhead(sampling.draw)(there, 0, WINDOW)
    with Launches() as making:
        window = assemble(plan, loaded.features, loaded.maps.get(None), 0)
    stepping = []

    def record(steps: Any) -> Any:
        with Launches() as found:
            steps()
        stepping.append(found)
        return steps

    head = head_options(config, store, inputs, loaded.common)
    heads = StackedHeads([head], CPU, recorded=RecordedSteps(record))
    heads.train_on(window.pooled, window.label, 0, window.second)
    return {
        "a draw": drawing.n,
        "of iterations": iterations_at_once(there),
        "draws of a window": round(drawing.n * WINDOW / iterations_at_once(there)),
        "batches": making.n,
        "steps": stepping[0].n,
    }


if __name__ == "__main__":
    opened = FeatureStore(Path(sys.argv[1]))
    counts = {method: of_window(opened, method) for method in sys.argv[2:] or METHODS}
    print(pd.DataFrame.from_dict(counts, orient="index").to_string())
