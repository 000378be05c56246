"""Forecast of an extraction: space and time for every dtype and codec.

A simple model of the largest effects. Computing runs at the speed measured on a few images and writing at
that of the disk, side by side, so the longer one is the expected time. Writing is the time to round and
compress on one thread (the writer has two) plus that of the disk; a compressed HDF5 store is then assembled,
that is, written again.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from rich.progress import Progress

from extract.device import Compute, make_deterministic, resolve_device, use_device
from extract.dump import axis_lengths
from extract.images.views import check_views, with_views
from extract.inner_layers.stored import Shapes, layer_shapes, stored_layers
from finetune.forecast.compression import Packing, measure_packing
from finetune.forecast.config import ForecastConfig
from finetune.forecast.disk import DiskSpeed, existing_folder, free_bytes, measure_disk
from finetune.forecast.extract_throughput import MAPS, images_per_second, sample_maps, settle_batch_norms
from finetune.forecast.options import check_local
from finetune.forecast.store_size import StoreSize, store_size
from finetune.forecast.workload import Workload, find_workload
from store.arrays.codecs import CODECS
from store.arrays.image_names import DIGEST_BYTES
from store.drafts.lifecycle import check_writable
from store.layout import ArrayLayout, store_layout
from store.schema import MAP_DTYPES, maps_name
from store.storage.location import locate


@dataclass(frozen=True)
class Choice:
    """A store with one dtype and codec.

    Attributes:
        dtype, codec: dtype and codec of its feature maps.
        maps: layout of the feature maps.
        size: size of the store; exact without a codec, else estimated from a sample.
        packing: measurements on the sample of feature maps.
        seconds: expected time of the extraction; None if the disk could not be measured.
    """

    dtype: str
    codec: str
    maps: ArrayLayout
    size: StoreSize
    packing: Packing
    seconds: float | None


@dataclass(frozen=True)
class Extraction:
    """Forecast of an extraction.

    Attributes:
        arch, weights, trained: the network; see `Workload`.
        device: device of the measurement.
        sizes: lengths of the axes N, H, W, C of each split; N counts every view of an image.
        views: V, views of each training image.
        n_classes: K.
        class_counts: training images of each class.
        layers: shapes (H, W, C) of the maps of earlier layers that are stored too, by name.
        n_sampled: maps that compression was measured on.
        images_per_second: images through the network, decoding included; each view counts as one.
        folder: folder of the target, or the nearest existing one above it.
        free_bytes: free space on its disk.
        disk: speeds of the disk; None if there was too little space to measure.
        choices: every dtype with every codec.
    """

    arch: str
    weights: str
    trained: bool
    device: str
    sizes: dict[str, dict[str, int]]
    views: int
    n_classes: int
    class_counts: tuple[int, ...]
    layers: Shapes
    n_sampled: int
    images_per_second: float
    folder: str
    free_bytes: int
    disk: DiskSpeed | None
    choices: tuple[Choice, ...]


def forecast_extraction(config: ForecastConfig, progress: Progress) -> Extraction:
    """Measure on the images, a few of their feature maps and the disk; no files are left behind.

    Raises:
        UserError: as `extract` does, for the checkpoint, network, images, options and path.
    """
    check_local(config.store)
    path = locate(config.store)
    check_writable(path, resume=False, overwrite=True)
    config.check_numbers()
    check_views(config)
    compute, workload = _compute(config), find_workload(config, progress)
    task = progress.add_task("measuring", total=3, status="the network")
    class_counts = tuple(workload.dataset.class_counts.tolist())
    workload = _prepared(workload, compute, config.views)
    sizes = axis_lengths(workload.network, workload.dataset.splits, workload.transform, compute)
    if config.ckpt is None:  # training will store a digest of every image
        sizes = {split: lengths | {"D": DIGEST_BYTES} for split, lengths in sizes.items()}
    shapes = layer_shapes(config, workload.network, workload.transform.image_size, compute.device)
    workload = replace(workload, layers=tuple(shapes))
    maps = sample_maps(workload, compute, config.seconds)
    pace = images_per_second(workload, compute, config.seconds)
    progress.update(task, completed=1, status="the disk")
    n_classes, folder = len(workload.dataset.class_names), existing_folder(path)
    free = free_bytes(folder)

    def layouts_of(dtype: str, codec: str) -> dict[str, ArrayLayout]:
        layers = stored_layers(config, shapes, dtype, codec)
        return store_layout(
            sizes, n_classes, dtype, config.batch_size, codec, n_views=config.views, layers=layers
        )

    layout = layouts_of(config.dtype, config.codec)[MAPS]
    disk = measure_disk(folder, layout.block_rows * layout.row_bytes, layout.row_bytes, config.seconds)
    progress.update(task, completed=2, status="codecs")
    choices = []
    for dtype, codec in product(MAP_DTYPES, CODECS):
        layouts = layouts_of(dtype, codec)
        packings = _packings(maps, _map_dtypes(config, shapes, dtype), layouts)
        size = store_size(path.suffix, layouts, {of: packing.share for of, packing in packings.items()})
        to_pack = sum(packing.pack_seconds for packing in packings.values())
        seconds = None if disk is None else _seconds(sizes, pace, size, to_pack, disk)
        choices.append(Choice(dtype, codec, layouts[MAPS], size, packings[MAPS], seconds))
    progress.remove_task(task)
    return Extraction(
        arch=workload.arch,
        weights=workload.weights,
        trained=workload.trained,
        device=str(compute.device),
        sizes=sizes,
        views=config.views,
        n_classes=n_classes,
        class_counts=class_counts,
        layers=shapes,
        n_sampled=len(maps[MAPS]),
        images_per_second=pace,
        folder=str(folder),
        free_bytes=free,
        disk=disk,
        choices=tuple(choices),
    )


def _compute(config: ForecastConfig) -> Compute:
    device = use_device(resolve_device(config.device))
    make_deterministic()
    return Compute(device, config.precision, config.batch_size, config.workers)


def _prepared(workload: Workload, compute: Compute, n_views: int) -> Workload:
    """The network on its device, and the images, every view of which counts as one."""
    workload.network.to(compute.device, memory_format=compute.memory_format)
    if not workload.trained:
        settle_batch_norms(workload, compute)
    return _in_views(workload, n_views)


def _packings(
    maps: dict[str, np.ndarray], dtypes: dict[str, str], layouts: dict[str, ArrayLayout]
) -> dict[str, Packing]:
    """Measurements on the samples of all maps, by path."""
    return {path: measure_packing(of, dtypes[path], layouts[path]) for path, of in maps.items()}


def _map_dtypes(config: ForecastConfig, shapes: Shapes, dtype: str) -> dict[str, str]:
    """Dtypes of all maps, by path, where feature maps have this one."""
    layers = stored_layers(config, shapes, dtype, config.codec)
    return {MAPS: dtype} | {f"train/{maps_name(layer)}": of.dtype for layer, of in layers.items()}


def _in_views(workload: Workload, n_views: int) -> Workload:
    """A copy with `n_views` views per training image, of seed 0: the seed changes neither speed nor size."""
    train = with_views(workload.dataset.train, 0, n_views)
    return replace(workload, dataset=replace(workload.dataset, train=train))


def _seconds(
    sizes: dict[str, dict[str, int]], pace: float, size: StoreSize, pack_seconds: float, disk: DiskSpeed
) -> float:
    """Expected time of an extraction, which rounds and compresses a row of the train split in so long."""
    computing = sum(lengths["N"] for lengths in sizes.values()) / pace
    assembled = size.n_bytes if size.peak_bytes > size.n_bytes else 0
    blocks = size.peak_bytes - assembled
    writing = blocks / disk.write + sizes["train"]["N"] * pack_seconds
    return max(computing, writing) + assembled / disk.write
