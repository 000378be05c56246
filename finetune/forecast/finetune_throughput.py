"""Speed of Phase II on a device: its own training step, on synthetic features."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from finetune.config import FinetuneConfig
from finetune.heads.losses import Loss
from finetune.heads.options import HeadOptions
from finetune.heads.threads import single_threaded
from finetune.loading.features import Features
from finetune.loading.residency import HeldMaps
from finetune.loading.window import assemble
from finetune.mixing.fsa import Fusion
from finetune.sampling.plan import Plan
from finetune.training.head_pool import HeadPool
from store.arrays.dtypes import computing_dtype

WINDOW = FinetuneConfig(store="").window
TABLE_BYTES = 256 * 1024**2  # size of the synthetic table of vectors: more than a processor's caches
HELD_OUT = 4096  # rows predicted at a time


@dataclass(frozen=True)
class Pace:
    """Seconds per unit of work on the device.

    Attributes:
        iteration: fusing a batch and taking a step, with maps in memory.
        held_out_row: predicting one held-out sample.
    """

    iteration: float
    held_out_row: float


def measure_pace(
    lengths: dict[str, int], n_classes: int, map_dtype: str, device: torch.device, seconds: float
) -> Pace:
    """Measure training steps and predictions on features of ones, with rows and vectors drawn at random.

    Args:
        lengths: lengths of the axes N, H, W, C of the train split.
        n_classes: K.
        map_dtype: dtype of the feature maps, a member of MAP_DTYPES.
        device: where the head is trained.
        seconds: time for each of the two measurements.
    """
    config, channels = FinetuneConfig(store="", method="fsa").resolved(n_classes), lengths["C"]
    dtype = getattr(torch, computing_dtype(map_dtype).name)
    n_positions = lengths["H"] * lengths["W"]
    n_rows = max(1, min(lengths["N"], TABLE_BYTES // (n_positions * channels * dtype.itemsize)))
    features = Features(
        torch.ones(n_rows, channels, device=device),
        torch.zeros(n_rows, dtype=torch.int64, device=device),
    )
    maps = HeldMaps(torch.ones(n_rows * n_positions, channels, dtype=dtype, device=device))
    plan = _made_plan(config, n_rows, n_positions)
    weight, bias = np.zeros((n_classes, channels), np.float32), np.zeros(n_classes, np.float32)
    head = HeadOptions(weight, bias, Loss(), config.lr, config.momentum)
    held_out = torch.ones(HELD_OUT, channels, device=device)
    with single_threaded() as threads:
        stacks = HeadPool([head], device, threads)
        layer = stacks.layers()[0]

        def window() -> torch.Tensor:
            return stacks.train_on(assemble(plan, features, maps, 0)).mean()

        def prediction() -> torch.Tensor:
            return layer.logits(held_out).argmax(dim=1).sum()

        return Pace(_seconds(window, seconds) / WINDOW, _seconds(prediction, seconds) / HELD_OUT)


def _made_plan(config: FinetuneConfig, n_rows: int, n_positions: int) -> Plan:
    rng = np.random.default_rng(0)
    n_augmented = config.n_tail * config.augmented_per_sample
    row = rng.integers(n_rows, size=(WINDOW, config.batch_size))
    donor_row = rng.integers(n_rows, size=(WINDOW, n_augmented))
    vectors = rng.integers(n_rows * n_positions, size=(*donor_row.shape, n_positions), dtype=np.int32)
    return Plan(row, Fusion(row[:, -n_augmented:], donor_row, np.ones_like(donor_row), vectors, np.zeros(2)))


def _seconds(work: Callable[[], torch.Tensor], at_most: float) -> float:
    """Shortest time of some work, the one disturbed least; `item` waits for the device.

    The first run does not count.
    """
    work().item()
    times, until = [], time.perf_counter() + at_most
    while not times or time.perf_counter() < until:
        started = time.perf_counter()
        work().item()
        times.append(time.perf_counter() - started)
    return min(times)
