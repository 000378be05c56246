"""`store plan`: forecast of a store and of runs on it, before anything is computed.

If the maps fit in memory, the expected time of a run is that of reading them once, in order, plus its
iterations, at the speed measured on synthetic features. If they do not fit, each iteration also reads its
maps from the disk row by row: those of rows that are replaced, and of their donors. Evaluations on held-out
features are added to both. Starting up, drawing the plan and writing the run are left out.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import Progress

from extract.device import resolve_device, use_device
from finetune.config import FinetuneConfig
from finetune.forecast.config import ForecastConfig
from finetune.forecast.disk import DiskSpeed
from finetune.forecast.extraction import Choice, Extraction, forecast_extraction
from finetune.forecast.finetune_throughput import Pace, fused_share, measure_pace, n_places
from finetune.loading.residency import memory_for_maps, share_for_maps
from store.arrays.dtypes import computing_dtype


@dataclass(frozen=True)
class Finetuning:
    """Forecast of a run of the default method, for one dtype and codec.

    Attributes:
        map_bytes: bytes of its maps in memory, decoded.
        in_memory: whether they fit.
        seconds: expected time of the run; None if the disk could not be measured.
    """

    map_bytes: int
    in_memory: bool
    seconds: float | None


@dataclass(frozen=True)
class Forecast:
    """All results of `store plan`.

    Attributes:
        config: the options.
        extraction: forecast of the extraction.
        memory_bytes: bytes for maps on the device.
        finetuning: forecast of a run for each choice of the extraction.
    """

    config: ForecastConfig
    extraction: Extraction
    memory_bytes: int
    finetuning: tuple[Finetuning, ...]

    @property
    def chosen(self) -> Choice:
        """The choice with the dtype and codec of the options."""
        named = (self.config.dtype, self.config.codec)
        return next(c for c in self.extraction.choices if (c.dtype, c.codec) == named)

    def fits(self, choice: Choice) -> bool:
        """Whether the disk has enough space while a choice is written."""
        return choice.size.peak_bytes <= self.extraction.free_bytes


def forecast(config: ForecastConfig, progress: Progress) -> Forecast:
    """Measure and predict; no files are left behind.

    Raises:
        UserError: as `extract` does, for the checkpoint, network, images, options and path.
    """
    extraction = forecast_extraction(config, progress)
    device = use_device(resolve_device(config.device))
    memory, lengths = memory_for_maps(device), extraction.sizes["train"]
    class_counts = np.array(extraction.class_counts)
    task = progress.add_task("measuring", total=3, status="fine-tuning")
    paces: dict[str, Pace] = {}
    for choice in extraction.choices:
        name = computing_dtype(choice.dtype).name
        if name not in paces:
            paces[name] = measure_pace(lengths, class_counts, name, device, config.seconds / 4)
            progress.advance(task)
    progress.remove_task(task)
    runs = []
    for choice in extraction.choices:
        dtype = computing_dtype(choice.dtype)
        map_bytes = math.prod(choice.maps.shape) * dtype.itemsize
        in_memory = _has_room(map_bytes, memory, device)
        seconds = None
        if extraction.disk is not None:
            n_maps = None if in_memory else config.iterations * _maps_of_iteration(class_counts)
            reading = _reading_seconds(choice, extraction.disk, n_maps)
            seconds = reading + _computing_seconds(extraction.sizes, paces[dtype.name], config.iterations)
        runs.append(Finetuning(map_bytes, in_memory, seconds))
    return Forecast(config, extraction, memory, tuple(runs))


def _has_room(map_bytes: int, memory: int, device: torch.device) -> bool:
    """Whether a run would hold its maps on the device or the host, instead of streaming them."""
    on_device = map_bytes <= share_for_maps(device) * memory
    if on_device or device.type == "cpu":
        return on_device
    cpu = torch.device("cpu")
    return _has_room(map_bytes, memory_for_maps(cpu), cpu)


def _maps_of_iteration(class_counts: np.ndarray) -> float:
    """Maps that an iteration reads, on average: of rows that are replaced, and of as many donors."""
    return 2 * fused_share(class_counts) * n_places(FinetuneConfig(store="").resolved(len(class_counts)))


def _reading_seconds(choice: Choice, disk: DiskSpeed, n_streamed: float | None) -> float:
    """Time to read all maps once, in order; or so many, streamed row by row (compressed: by chunk)."""
    rows, speed = choice.maps.shape[0], disk.read
    if n_streamed is not None:
        speed = disk.read_random  # ignores maps that are still in memory
        rows = n_streamed * (choice.maps.chunk_rows if choice.codec != "none" else 1)
    return rows * (choice.maps.row_bytes * choice.packing.share / speed + choice.packing.unpack_seconds)


def _computing_seconds(sizes: dict[str, dict[str, int]], pace: Pace, iterations: int) -> float:
    """Time of steps, of evaluations on val, and of the final ones of both heads on val and test."""
    held_out = {split: lengths["N"] for split, lengths in sizes.items() if split != "train"}
    n_accuracies = 1 + math.ceil(iterations / FinetuneConfig(store="").eval_every)
    rows = n_accuracies * held_out.get("val", 0) + 2 * sum(held_out.values())
    return iterations * pace.iteration + rows * pace.held_out_row
