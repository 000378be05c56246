"""Speed of Phase II on a device: the training step of its default method, on synthetic features."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from finetune.config import FinetuneConfig
from finetune.heads.losses import balanced_softmax
from finetune.heads.options import HeadOptions
from finetune.heads.threads import single_threaded
from finetune.loading.features import Features
from finetune.loading.residency import HeldMaps
from finetune.loading.window import assemble
from finetune.mixing.fsa import Fusion
from finetune.sampling.head_tail import split_head_tail
from finetune.sampling.plan import Mixing, Plan
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


def fused_share(class_counts: np.ndarray) -> float:
    """How likely a row that may be replaced is one of a tail class, and is."""
    tail = split_head_tail(class_counts, FinetuneConfig(store="").head_ratio).tail
    return float(class_counts[tail].sum() / class_counts.sum())


def n_places(config: FinetuneConfig) -> int:
    """Rows of a batch that may be replaced, with resolved options."""
    return Mixing(config.mix_share).n_places(config.batch_size)


def measure_pace(
    lengths: dict[str, int], class_counts: np.ndarray, map_dtype: str, device: torch.device, seconds: float
) -> Pace:
    """Measure training steps and predictions on features of ones, with rows and vectors drawn at random.

    Args:
        lengths: lengths of the axes N, H, W, C of the train split.
        class_counts: (K,) training images of each class.
        map_dtype: dtype of the feature maps, a member of MAP_DTYPES.
        device: where the head is trained.
        seconds: time for each of the two measurements.
    """
    n_classes, channels = len(class_counts), lengths["C"]
    config = FinetuneConfig(store="").resolved(n_classes)
    dtype = getattr(torch, computing_dtype(map_dtype).name)
    n_positions = lengths["H"] * lengths["W"]
    n_rows = max(1, min(lengths["N"], TABLE_BYTES // (n_positions * channels * dtype.itemsize)))
    features = Features(
        torch.ones(n_rows, channels, device=device),
        torch.full((n_rows,), int(class_counts.argmax()), device=device),
    )
    maps = HeldMaps(torch.ones(n_rows * n_positions, channels, dtype=dtype, device=device))
    plan = _made_plan(config, n_rows, n_positions, fused_share(class_counts))
    weight, bias = np.zeros((n_classes, channels), np.float32), np.zeros(n_classes, np.float32)
    loss = balanced_softmax(class_counts / class_counts.sum(), config.tau)
    head = HeadOptions(weight, bias, loss, config.lr, config.momentum, config.weight_decay)
    held_out = torch.ones(HELD_OUT, channels, device=device)
    with single_threaded() as threads:
        stacks = HeadPool([head], device, threads)
        layer = stacks.layers()[0]

        def window() -> torch.Tensor:
            return stacks.train_on(assemble(plan, features, maps, 0)).mean()

        def prediction() -> torch.Tensor:
            return layer.logits(held_out).argmax(dim=1).sum()

        return Pace(_seconds(window, seconds) / WINDOW, _seconds(prediction, seconds) / HELD_OUT)


def _made_plan(config: FinetuneConfig, n_rows: int, n_positions: int, share: float) -> Plan:
    """Batches of any rows, of which a share of those that may be replaced is fused from any vectors."""
    rng = np.random.default_rng(0)
    row = rng.integers(n_rows, size=(WINDOW, config.batch_size))
    donor_row = rng.integers(n_rows, size=(WINDOW, n_places(config)))
    vectors = rng.integers(n_rows * n_positions, size=(*donor_row.shape, n_positions), dtype=np.int32)
    is_mixed = rng.random(donor_row.shape) < share
    replaced, n_specific = row[:, -donor_row.shape[1] :], np.ones_like(donor_row)
    fusion = Fusion(replaced, donor_row, n_specific, vectors, np.zeros((WINDOW, 2)), is_mixed)
    return Plan(row, fusion, is_mixed.sum(axis=1))


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
