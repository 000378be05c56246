"""What a store will take and give, before any of it is computed: `store plan`.

A run with maps that fit in memory is expected to take their reading, in order, and its iterations, each as
long as one of made-up features; a run whose maps do not fit, its iterations and the maps that they touch,
read from the disk row by row: N_t tail samples and N_t · N_a donors each. To both come the accuracies on
held-out features. Starting, drawing the plan and writing the run are left out.
"""

import math
from dataclasses import dataclass

import torch
from rich.progress import Progress

from extract.config import ForecastConfig
from extract.device import resolve_device, use_device
from finetune.config import FinetuneConfig
from finetune.forecast.disk import DiskSpeed
from finetune.forecast.extraction import Choice, Extraction, forecast_extraction
from finetune.forecast.finetune_throughput import Pace, measure_pace
from finetune.loading.residency import memory_for_maps, share_for_maps
from store.arrays.dtypes import computing_dtype


@dataclass(frozen=True)
class Finetuning:
    """A run of feature space augmentation on one choice of dtype and codec.

    Attributes:
        map_bytes: that its maps take in memory, decoded.
        in_memory: whether they fit there.
        seconds: expected of the run; None where the disk could not be measured.
    """

    map_bytes: int
    in_memory: bool
    seconds: float | None


@dataclass(frozen=True)
class Forecast:
    """All that `store plan` finds out.

    Attributes:
        config: what was asked.
        extraction: room and time until the store is there.
        memory_bytes: that maps may take on the device.
        finetuning: of each choice of the extraction.
    """

    config: ForecastConfig
    extraction: Extraction
    memory_bytes: int
    finetuning: tuple[Finetuning, ...]

    @property
    def chosen(self) -> Choice:
        """The dtype and codec that the options name."""
        named = (self.config.dtype, self.config.codec)
        return next(c for c in self.extraction.choices if (c.dtype, c.codec) == named)

    def fits(self, choice: Choice) -> bool:
        """Whether the disk has room for a choice while it is written."""
        return choice.size.peak_bytes <= self.extraction.free_bytes


def forecast(config: ForecastConfig, progress: Progress) -> Forecast:
    """Measure and predict; nothing stays behind.

    Raises:
        UserError: what `extract` would raise of checkpoint, network, images, options and path.
    """
    extraction = forecast_extraction(config, progress)
    device = use_device(resolve_device(config.device))
    memory, lengths = memory_for_maps(device), extraction.sizes["train"]
    task = progress.add_task("measuring", total=3, status="fine-tuning")
    paces: dict[str, Pace] = {}
    for choice in extraction.choices:
        name = computing_dtype(choice.dtype).name
        if name not in paces:
            paces[name] = measure_pace(lengths, extraction.n_classes, name, device, config.seconds / 4)
            progress.advance(task)
    progress.remove_task(task)
    runs = []
    for choice in extraction.choices:
        dtype = computing_dtype(choice.dtype)
        map_bytes = math.prod(choice.maps.shape) * dtype.itemsize
        in_memory = _has_room(map_bytes, memory, device)
        seconds = None
        if extraction.disk is not None:
            reading = _reading_seconds(choice, extraction.disk, config.iterations, in_memory)
            seconds = reading + _computing_seconds(extraction.sizes, paces[dtype.name], config.iterations)
        runs.append(Finetuning(map_bytes, in_memory, seconds))
    return Forecast(config, extraction, memory, tuple(runs))


def _has_room(map_bytes: int, memory: int, device: torch.device) -> bool:
    """Whether a run would hold maps, on the device or else on the host, and not stream them."""
    on_device = map_bytes <= share_for_maps(device) * memory
    if on_device or device.type == "cpu":
        return on_device
    cpu = torch.device("cpu")
    return _has_room(map_bytes, memory_for_maps(cpu), cpu)


def _reading_seconds(choice: Choice, disk: DiskSpeed, iterations: int, in_memory: bool) -> float:
    """All maps once, in order; or those of every iteration, a chunk each where chunks are compressed."""
    rows, speed = choice.maps.shape[0], disk.read
    if not in_memory:
        config, speed = FinetuneConfig(store=""), disk.read_random  # as streamed, but for what repeats
        rows = iterations * config.n_tail * (1 + config.augmented_per_sample)
        rows *= choice.maps.chunk_rows if choice.codec != "none" else 1
    return rows * (choice.maps.row_bytes * choice.packing.share / speed + choice.packing.unpack_seconds)


def _computing_seconds(sizes: dict[str, dict[str, int]], pace: Pace, iterations: int) -> float:
    """Steps, accuracies on val under way, and at the end Phase I's and the new one on val and test."""
    held_out = {split: lengths["N"] for split, lengths in sizes.items() if split != "train"}
    n_accuracies = 1 + math.ceil(iterations / FinetuneConfig(store="").eval_every)
    rows = n_accuracies * held_out.get("val", 0) + 2 * sum(held_out.values())
    return iterations * pace.iteration + rows * pace.held_out_row
