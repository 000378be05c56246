"""How many operations a window asks a GPU for: its draw, its batches, and its steps.

Usage: python benchmarks/launches.py STORE [METHOD]..., counted on a CPU. Views cost a GPU nothing and are not
counted; every other operation is one launch at least.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from finetune.config import FinetuneConfig
from finetune.heads.threads import Threads
from finetune.loading.drawn_ahead import ITERATIONS
from finetune.loading.window import assemble
from finetune.methods.registry import find_sampling
from finetune.training.head_pool import HeadPool
from finetune.training.inputs import head_options, plan_inputs
from finetune.training.trainer import LoadedStore
from store.reader import FeatureStore

CPU, WINDOW = torch.device("cpu"), 64
METHODS = ("fsa", "fsa+balanced-softmax", "h2t", "mixup", "tailcalib", "balanced-softmax")
FREE = {"alias", "as_strided", "detach", "lift_fresh", "permute", "slice", "split", "t"} | {
    *("empty", "empty_like", "empty_strided", "new_empty"),
    *(
        "_reshape_alias",
        "_unsafe_view",
        "expand",
        "select",
        "squeeze",
        "transpose",
        "unbind",
        "unsqueeze",
        "view",
    ),
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
    """Launches of the draws, the batches and the steps of a window, as a GPU that holds the maps makes it."""
    config = FinetuneConfig(store=str(store.path), method=method, window=WINDOW).resolved(
        len(store.class_names)
    )
    threads = Threads(1)
    loaded = LoadedStore.open(store, config.shot_rule, CPU, threads)
    sampling, inputs = find_sampling(config), plan_inputs(config, store, loaded.common)
    if sampling.reads_maps:
        loaded.prepare_maps(config)
    there = inputs.on(CPU)
    with Launches() as in_window:
        plan = sampling.draw(there, 0, WINDOW)
    with Launches() as ahead:
        sampling.draw(there, 0, ITERATIONS)
    with Launches() as batches:
        window = assemble(plan, loaded.features, loaded.maps.get(None), 0)
    heads = HeadPool([head_options(config, store, inputs, loaded.common)], CPU, threads)
    with Launches() as steps:
        heads.train_on(window)
    return {
        f"draw {WINDOW} iterations": in_window.n,
        f"draw {ITERATIONS}": ahead.n,
        "batches": batches.n,
        "steps": steps.n,
    }


if __name__ == "__main__":
    opened = FeatureStore(Path(sys.argv[1]))
    counts = {method: of_window(opened, method) for method in sys.argv[2:] or METHODS}
    print(pd.DataFrame.from_dict(counts, orient="index").to_string())
