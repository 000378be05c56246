"""How fast Phase II goes on a device: its own loop, on made-up features."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from finetune.config import FinetuneConfig
from finetune.features import Features
from finetune.head import Head
from finetune.plan import Plan
from finetune.train import WINDOW, batches
from store.map_dtypes import computing_dtype

TABLE_BYTES = 256 * 1024**2  # of the made-up table of vectors: more than a processor's caches
HELD_OUT = 4096  # rows that are predicted at a time


@dataclass(frozen=True)
class Pace:
    """Seconds on the device.

    Attributes:
        iteration: fusing a batch and taking the step, maps in memory.
        held_out_row: predicting one held-out sample.
    """

    iteration: float
    held_out_row: float


def measure_pace(
    lengths: dict[str, int], n_classes: int, map_dtype: str, device: torch.device, seconds: float
) -> Pace:
    """Take steps on features of ones, from vectors and rows drawn at random.

    Args:
        lengths: of the axes N, H, W, C of the train split.
        n_classes: K.
        map_dtype: of the feature maps, a member of MAP_DTYPES.
        device: where the head is trained.
        seconds: for each of the two.
    """
    config, channels = FinetuneConfig(store=""), lengths["C"]
    dtype = getattr(torch, computing_dtype(map_dtype).name)
    n_positions = lengths["H"] * lengths["W"]
    n_rows = max(1, min(lengths["N"], TABLE_BYTES // (n_positions * channels * dtype.itemsize)))
    pooled = torch.ones(n_rows, channels, device=device)
    label = torch.zeros(n_rows, dtype=torch.int64, device=device)
    table = torch.ones(n_rows * n_positions, channels, dtype=dtype, device=device)
    features, plan = Features(pooled, label, table), _made_plan(config, n_rows, n_positions)
    weight, bias = torch.zeros(n_classes, channels, device=device), torch.zeros(n_classes, device=device)
    head = Head(weight, bias, config.lr, config.momentum)
    held_out = torch.ones(HELD_OUT, channels, device=device)

    def window() -> torch.Tensor:
        return torch.stack([head.step(*batch) for batch in batches(plan, features)]).mean()

    def prediction() -> torch.Tensor:
        return head.logits(held_out).argmax(dim=1).sum()

    return Pace(_seconds(window, seconds) / WINDOW, _seconds(prediction, seconds) / HELD_OUT)


def _made_plan(config: FinetuneConfig, n_rows: int, n_positions: int) -> Plan:
    rng = np.random.default_rng(0)
    n_augmented = config.n_tail * config.augmented_per_sample
    real = rng.integers(n_rows, size=(WINDOW, config.batch_size - n_augmented))
    rows = rng.integers(n_rows, size=(WINDOW, n_augmented))
    vectors = rng.integers(n_rows * n_positions, size=(*rows.shape, n_positions), dtype=np.int32)
    return Plan(real, rows, rows, np.ones_like(rows), vectors)


def _seconds(work: Callable[[], torch.Tensor], at_most: float) -> float:
    """The shortest time of some work, which others disturb least; `item` waits for the device.

    The first time does not count.
    """
    work().item()
    times, until = [], time.perf_counter() + at_most
    while not times or time.perf_counter() < until:
        started = time.perf_counter()
        work().item()
        times.append(time.perf_counter() - started)
    return min(times)
