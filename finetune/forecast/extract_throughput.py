"""What a network makes of a few of its images, and how fast: a sample of an extraction.

Everything but the writing happens as it does in `extract`: decoding, the network, CAMs, copies to the host.
"""

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from rich.progress import Progress

from extract.device import Compute
from extract.dump import batch_rows
from extract.images.batches import evaluation_batches
from extract.images.image_set import IN_MEMORY_SIZE, ImageSet, decode
from extract.inference import by_class, numbered_maps
from finetune.forecast.workload import Workload

SAMPLE = 32  # maps that are looked at
SMALL_BATCH = 8
MOST_GROWTH = 8  # from one attempt to the next


@torch.no_grad()
def settle_batch_norms(subject: Workload, compute: Compute) -> None:
    """Give a network of initial weights the statistics of a few images.

    Without them nothing is normalised: maps grow with every layer, and tell nothing of a trained network's.
    """
    norms = [module for module in subject.network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    subject.network.train()
    few = _decoded(subject.dataset.train.take(_order(subject)[:SMALL_BATCH]), subject)
    for images, _ in evaluation_batches(few, subject.transform, replace(compute, batch_size=SMALL_BATCH)):
        subject.network.features(images.contiguous(memory_format=compute.memory_format))
    subject.network.eval()
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def sample_maps(subject: Workload, compute: Compute, seconds: float) -> np.ndarray:
    """Feature maps (B, H, W, C) float32 of training images, in the order of a store.

    There are 32 of them, or as many as come within the time, one batch of images in all views at least.
    """
    n_views = subject.dataset.train.n_views
    images = by_class(subject.dataset.train.take(_order(subject)[: -(-SAMPLE // n_views)]))
    started, maps = time.perf_counter(), []
    for view, rows in _rows(subject, images, replace(compute, batch_size=SMALL_BATCH)):
        maps.append(rows["feature_map"])
        if view == n_views - 1 and time.perf_counter() - started > seconds:
            break
    batches = [np.stack(maps[i : i + n_views], axis=1) for i in range(0, len(maps), n_views)]
    return np.ascontiguousarray(np.concatenate([batch.reshape(-1, *batch.shape[2:]) for batch in batches]))


def images_per_second(subject: Workload, compute: Compute, seconds: float) -> float:
    """How many images an extraction brings through the network, each as often as it has views.

    More and more of them are tried, others each time, until one attempt takes half of the time, or all
    training images: starting worker processes counts less and less.
    """
    order = _order(subject)
    n = min(SMALL_BATCH, len(order))
    while True:
        images = subject.dataset.train.take(order[:n])
        started = time.perf_counter()
        for _ in _rows(subject, images, replace(compute, batch_size=min(n, compute.batch_size))):
            pass
        elapsed = time.perf_counter() - started
        if elapsed >= seconds / 2 or n == len(order):
            return n * images.n_views / elapsed
        order = np.roll(order, -n)
        n = min(len(order), int(n * min(MOST_GROWTH, seconds / elapsed)))


def _order(subject: Workload) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(subject.dataset.train))


def _rows(
    subject: Workload, images: ImageSet, compute: Compute
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """What `extract` computes of training images, batch by batch, and of which view."""
    weight, label = subject.network.classifier.weight.detach(), torch.from_numpy(images.label)
    images = _decoded(images, subject)
    for start, view, maps in numbered_maps(subject.network, images, subject.transform, compute):
        yield view, batch_rows(maps, weight, label[start : start + len(maps)])


def _decoded(images: ImageSet, subject: Workload) -> ImageSet:
    size = subject.transform.image_size
    if images.in_memory or size > IN_MEMORY_SIZE:
        return images
    return decode(images, size, Progress(disable=True), "sample", subject.transform.reading)
