"""A forecast as text, as JSON, and its warnings."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from finetune.config import FinetuneConfig
from finetune.forecast.finetune_throughput import fused_share
from finetune.forecast.forecast import Forecast
from finetune.forecast.units import duration, size

GB = 1e9


def forecast_json(forecast: Forecast) -> dict[str, Any]:
    """The forecast without its options, for JSON; sizes in bytes, times in seconds."""
    extraction = asdict(forecast.extraction)
    choices = zip(extraction.pop("choices"), forecast.extraction.choices, forecast.finetuning, strict=True)
    return {
        "store": forecast.config.store,
        "iterations": forecast.config.iterations,
        "memory_bytes": forecast.memory_bytes,
        "warnings": list(warnings(forecast)),
        **extraction,
        "choices": [
            {
                "dtype": choice.dtype,
                "codec": choice.codec,
                "chosen": choice is forecast.chosen,
                "exact": choice.codec == "none",
                "fits": forecast.fits(choice),
                **content["size"],
                **content["packing"],
                "extract_seconds": choice.seconds,
                "finetune_seconds": run.seconds,
                "map_bytes": run.map_bytes,
                "in_memory": run.in_memory,
            }
            for content, choice, run in choices
        ],
    }


def warnings(forecast: Forecast) -> Iterator[str]:
    """Problems ahead, one line each."""
    extraction, chosen = forecast.extraction, forecast.chosen
    lengths = extraction.sizes["train"]
    if not forecast.fits(chosen):
        fitting = [f"--dtype {c.dtype} --codec {c.codec}" for c in extraction.choices if forecast.fits(c)]
        yield (
            f"{forecast.config.store}: takes {size(chosen.size.peak_bytes)} while it is written, but "
            f"{extraction.folder} has {size(extraction.free_bytes)} free; make room, use another disk, or "
            f"choose what fits ({', '.join(fitting) or 'no other dtype and codec does'})"
        )
    if lengths["H"] * lengths["W"] == 1:
        yield (
            f"{extraction.arch}: its feature maps are 1×1 on these images, so nothing can be fused; choose "
            "a network with larger maps (such as resnet18-cifar for 32×32 images)"
        )
    elif not fused_share(np.array(extraction.class_counts)):
        yield (
            f"{extraction.n_classes} classes: all are needed to hold 80 % of the images, so finetune has no "
            "tail to fuse samples of; take a long-tailed data set (--imbalance-factor), or another --method"
        )


def forecast_lines(forecast: Forecast) -> Iterator[str]:
    """A table of all choices, with the measurements before it and notes after it, in 100 columns."""
    extraction, disk = forecast.extraction, forecast.extraction.disk
    lengths = extraction.sizes["train"]
    held_out = ", ".join(f"{n['N']:,} {split}" for split, n in extraction.sizes.items() if split != "train")
    maps = "×".join(str(lengths[axis]) for axis in "HWC")
    n_images, views = lengths["N"] // extraction.views, extraction.views
    in_views = f" in {views} views each" if views > 1 else ""
    yield f"{extraction.n_classes} classes, {n_images:,} training images{in_views} (maps {maps}), {held_out}"
    yield (
        f"{extraction.arch}, {extraction.weights}, on {extraction.device}: "
        f"{extraction.images_per_second:,.0f} {'views' if views > 1 else 'images'}/s, decoding included"
    )
    if extraction.layers:
        shapes = {layer: "×".join(map(str, shape)) for layer, shape in extraction.layers.items()}
        yield "maps of earlier layers: " + ", ".join(f"{layer} {of}" for layer, of in shapes.items())
    yield f"{extraction.folder}: {size(extraction.free_bytes)} free"
    yield (
        f"its disk writes {disk.write / GB:.2f} GB/s, reads {disk.read / GB:.2f} GB/s in order, "
        f"{disk.read_random / GB:.2f} row by row, {disk.read_cached / GB:.2f} cached"
        if disk
        else "its disk has too little space to measure its speed"
    )
    yield ""
    yield from _table(forecast)
    yield ""
    yield from _notes(forecast)


def _table(forecast: Forecast) -> Iterator[str]:
    yield (
        f"  {'dtype':<12} {'codec':<5} {'store':>10} {'while written':>13} {'files':>7} {'shards':>7} "
        f"{'extract':>8} {'finetune':>8}"
    )
    for choice, run in zip(forecast.extraction.choices, forecast.finetuning, strict=True):
        about = "" if choice.codec == "none" else "~"
        remarks = {"too large": not forecast.fits(choice), "streamed": not run.in_memory}
        remark = ", ".join(name for name, holds in remarks.items() if holds)
        row = (
            f"{'*' if choice is forecast.chosen else ' '} {choice.dtype:<12} {choice.codec:<5} "
            f"{about + size(choice.size.n_bytes):>10} {about + size(choice.size.peak_bytes):>13} "
            f"{choice.size.n_files:>7,} {choice.size.n_shards:>7,} "
            f"{duration(choice.seconds):>8} {duration(run.seconds):>8}  {remark}"
        )
        yield row.rstrip()


def _notes(forecast: Forecast) -> Iterator[str]:
    extraction = forecast.extraction
    other = "" if extraction.trained else "; trained ones may differ, pass --ckpt"
    yield "*: chosen by the options. Sizes without a codec are exact but for a KiB of metadata per array;"
    what = "training views" if extraction.views > 1 else "training images"
    yield f"~: estimated from {extraction.n_sampled} {what}, {extraction.weights}{other}."
    if forecast.config.store.endswith(".h5"):
        yield "A compressed .h5 is assembled at the end and briefly takes its space twice."
    yield "extract: expected time, the longer of computing and writing at the speeds measured above."
    memory = f"{size(forecast.memory_bytes)} of memory"
    yield (
        f"finetune: expected time of {forecast.config.iterations:,} iterations of {FinetuneConfig.method}, "
        "its default, on"
    )
    yield f"synthetic features, after reading all maps into {memory}; startup and drawing take a few"
    yield "seconds more."
    if not all(run.in_memory for run in forecast.finetuning):
        where = "the GPU and half of" if extraction.device.startswith("cuda") else "half of"
        yield f"streamed: too large for {where} the memory; the time includes reading the maps of every"
        yield "iteration from the disk, row by row."
