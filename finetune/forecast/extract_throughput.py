"""A sample of an extraction: feature maps of a few images, and images per second.

Everything except writing works as in `extract`: decoding, the network, CAMs, copies to the host.
"""

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from rich.progress import Progress

from extract.device import Compute
from extract.images.batches import evaluation_batches
from extract.images.image_set import ImageSet, decode
from extract.images.preparation import IN_MEMORY_SIZE
from extract.inference.passes import by_class
from extract.rows import computed_rows
from finetune.forecast.workload import Workload
from store.schema import maps_name

SAMPLE = 32  # maps to measure compression on
SMALL_BATCH = 8
LAYER_BYTES = 8 * 1024**2  # of an earlier layer's maps to measure compression on
MAPS = f"train/{maps_name(None)}"
MOST_GROWTH = 8  # of the number of images, from one attempt to the next


@torch.no_grad()
def settle_batch_norms(workload: Workload, compute: Compute) -> None:
    """Set the batch norm statistics of an untrained network from a few images.

    Without them nothing is normalised: maps grow with every layer and are unlike a trained network's.
    """
    norms = [module for module in workload.network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    workload.network.train()
    few = _decoded(workload.dataset.train.take(_order(workload)[:SMALL_BATCH]), workload)
    for images, _ in evaluation_batches(few, workload.transform, replace(compute, batch_size=SMALL_BATCH)):
        workload.network.features(images.contiguous(memory_format=compute.memory_format))
    workload.network.eval()
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def sample_maps(workload: Workload, compute: Compute, seconds: float) -> dict[str, np.ndarray]:
    """Maps (B, H, W, C) float32 of training images, in store order, by path in the store.

    32 of them, or as many as fit the time, but at least one batch of images in all views; of large maps of
    earlier layers fewer.
    """
    n_views = workload.dataset.train.n_views
    images = by_class(workload.dataset.train.take(_order(workload)[: -(-SAMPLE // n_views)]))
    names = [maps_name(layer) for layer in (None, *workload.layers)]
    started, maps = time.perf_counter(), {name: [] for name in names}
    for view, rows in _rows(workload, images, replace(compute, batch_size=SMALL_BATCH)):
        for name in names:
            maps[name].append(rows[name])
        if view == n_views - 1 and time.perf_counter() - started > seconds:
            break
    found = {f"train/{name}": _in_store_order(of_name, n_views) for name, of_name in maps.items()}
    most = {path: max(1, LAYER_BYTES // of_path[0].nbytes) for path, of_path in found.items()}
    return {path: of if path == MAPS else of[: most[path]] for path, of in found.items()}


def _in_store_order(maps: list[np.ndarray], n_views: int) -> np.ndarray:
    """Batches of maps, each batch once in every view, as rows of images with their views."""
    batches = [np.stack(maps[i : i + n_views], axis=1) for i in range(0, len(maps), n_views)]
    return np.ascontiguousarray(np.concatenate([batch.reshape(-1, *batch.shape[2:]) for batch in batches]))


def images_per_second(workload: Workload, compute: Compute, seconds: float) -> float:
    """Images per second of an extraction; each view counts as an image.

    Each attempt uses other and more images, until one takes half of the time or uses all training images, so
    that starting worker processes counts less and less.
    """
    order = _order(workload)
    n = min(SMALL_BATCH, len(order))
    while True:
        images = workload.dataset.train.take(order[:n])
        started = time.perf_counter()
        for _ in _rows(workload, images, replace(compute, batch_size=min(n, compute.batch_size))):
            pass
        elapsed = time.perf_counter() - started
        if elapsed >= seconds / 2 or n == len(order):
            return n * images.n_views / elapsed
        order = np.roll(order, -n)
        n = min(len(order), int(n * min(MOST_GROWTH, seconds / elapsed)))


def _order(workload: Workload) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(workload.dataset.train))


def _rows(
    workload: Workload, images: ImageSet, compute: Compute
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """View and rows that `extract` computes from training images, batch by batch."""
    images = _decoded(images, workload)
    layers, network = dict.fromkeys(workload.layers, "float32"), workload.network
    for _, view, rows in computed_rows(network, images, workload.transform, compute, "float32", layers):
        yield view, rows


def _decoded(images: ImageSet, workload: Workload) -> ImageSet:
    size = workload.transform.image_size
    if images.in_memory or size > IN_MEMORY_SIZE:
        return images
    return decode(images, size, Progress(disable=True), "sample", workload.transform.reading)
