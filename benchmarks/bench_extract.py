"""Speed of `extract` compared with the bare forward pass of the same network, batch size and precision.

Run with `make bench-extract`. Both are measured in turns, in one run. Extraction goes from
images in memory to a finished, synced store, with `extract`'s own functions; startup (imports, loading
and hashing the checkpoint, the plan) is left out. The bare pass is the feature network on
prepared batches in memory. Also measures the digest of an image compared with decoding it.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from hashing import GOAL as HASHING_GOAL
from hashing import measure_hashing
from rich.progress import Progress

from extract.checkpoints.checkpoint import Checkpoint
from extract.checkpoints.restore import Restored
from extract.config import DatasetConfig, NetworkConfig
from extract.dataset import Dataset
from extract.device import Compute, keep_freed_memory, make_deterministic, resolve_device, use_device
from extract.dump import fill
from extract.images.image_set import ImageSet
from extract.images.transforms import Transform, normalise
from extract.inference.passes import by_class
from extract.networks.registry import build_network
from store.layout import store_layout
from store.spec import StoreSpec
from store.writer import write_store

GOAL = 0.9  # fraction of the bare pass's speed
N_CLASSES = 10
QUIET = Progress(disable=True)


@dataclass(frozen=True)
class Case:
    """A network, with as many images as take a few seconds on two cores or on a GPU."""

    arch: str
    width: int | None
    side: int
    batch: int
    n_images: int
    on_gpu: tuple[int, int]  # batch size and images

    def on(self, device: torch.device) -> "Case":
        """The case for a device."""
        batch, n_images = self.on_gpu if device.type == "cuda" else (self.batch, self.n_images)
        return replace(self, batch=batch, n_images=n_images)

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.arch}{f' of width {self.width}' if self.width else ''}, {self.side}×{self.side}"


CASES = (
    Case("resnet32", None, 32, 128, 4096, (512, 32_768)),
    Case("resnet18-cifar", 16, 32, 128, 4096, (512, 32_768)),
    Case("resnet18-cifar", None, 32, 128, 512, (512, 16_384)),
    Case("resnet50", None, 224, 16, 48, (128, 2048)),
)
TINY = Case("resnet8", 4, 32, 8, 40, (8, 40))


def made_images(n: int, side: int) -> ImageSet:
    """Images of noise in memory, of all classes in turn."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, 3, side, side), np.uint8))
    return ImageSet(images, np.arange(n) % N_CLASSES, np.arange(n))


def made_restored(case: Case, compute: Compute) -> Restored:
    """A network with initial weights, and images: nine in ten for training, whose maps are stored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(NetworkConfig(case.arch, case.width), N_CLASSES).eval()
    images, n_test = made_images(case.n_images, case.side), case.n_images // 10
    rows = np.arange(case.n_images)
    train, test = images.take(rows[n_test:]), images.take(rows[:n_test])
    names = [str(k) for k in range(N_CLASSES)]
    dataset = Dataset(DatasetConfig(), names, train, None, test, "")
    checkpoint = Checkpoint({}, {}, {}, names, [1] * N_CLASSES, "", {}, 0, {})
    network.to(compute.device, memory_format=compute.memory_format)
    return Restored(checkpoint, network, dataset, Transform(case.side))


def bare_pass(restored: Restored, compute: Compute) -> Callable[[], None]:
    """The feature network on batches made beforehand."""
    batches = []
    for images in restored.dataset.splits.values():
        for batch in by_class(images).images.split(compute.batch_size):
            ready = normalise(batch.to(compute.device), restored.transform)
            batches.append(ready.contiguous(memory_format=compute.memory_format))

    @torch.inference_mode()
    def run() -> None:
        for batch in batches:
            with compute.autocast():
                restored.network.features(batch)

    return run


def extraction(restored: Restored, compute: Compute, path: Path) -> Callable[[], None]:
    """Everything from images to a store on disk."""
    splits = {name: by_class(images) for name, images in restored.dataset.splits.items()}
    one = torch.zeros(1, 3, *[restored.transform.image_size] * 2, device=compute.device)
    with torch.inference_mode():
        channels, height, width = restored.network.features(one).shape[1:]
    axes = {"H": height, "W": width, "C": channels}
    sizes = {name: axes | {"N": len(images)} for name, images in splits.items()}
    layouts = store_layout(sizes, N_CLASSES, "float16", compute.batch_size)
    plan = StoreSpec(layouts, "float16", restored.dataset.class_names, {}, {})

    def run() -> None:
        with write_store(path, plan, resume=False, overwrite=False) as writer:
            fill(writer, restored, splits, compute, QUIET)
            writer.finish()

    return run


def seconds(action: Callable[[], None], device: torch.device) -> float:
    """Time of one call, until the GPU is done too."""
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - started


def remove(path: Path) -> None:
    """Remove the store, to free space for the next."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def measure(case: Case, device: torch.device, folder: Path, repeats: int) -> pd.DataFrame:
    """Images per second: one row per repeat, one column per candidate."""
    compute = Compute(device, "fp32", case.batch, workers=0)
    restored = made_restored(case, compute)
    paths = {"zarr": folder / "s.zarr", "HDF5": folder / "s.h5"}
    ways = {"bare pass": bare_pass(restored, compute)}
    ways |= {name: extraction(restored, compute, path) for name, path in paths.items()}
    taken = []
    for repeat in range(repeats + 1):
        names = list(ways)[repeat % len(ways) :] + list(ways)[: repeat % len(ways)]
        row = {}
        for name in names:
            row[name] = case.n_images / seconds(ways[name], device)
            remove(paths[name]) if name in paths else None
        taken.append(row)
    return pd.DataFrame(taken[1:])[list(ways)]  # the first warms up


def report(case: Case, taken: pd.DataFrame) -> dict[str, object]:
    """A row of the table; prints a missed goal at once. Ratios are to the bare pass of the same repeat."""
    row: dict[str, object] = {"network": case.name, "images": case.n_images}
    row |= {f"{name} images/s": speed for name, speed in taken.median().items()}
    for name in ("zarr", "HDF5"):
        ratio = (taken[name] / taken["bare pass"]).median()
        row[f"{name} ratio"] = ratio
        if ratio < GOAL:
            click.echo(f"MISSED: {case.name}, {name}: {ratio:.2f} of the bare pass, goal {GOAL}")
    return row


@click.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), help="on the disk to write to; a temporary one else"
)
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda or cuda:N")
@click.option("--repeats", default=5, show_default=True, help="repeats of every candidate, in turns")
@click.option("--network", help="only networks whose name contains this")
@click.option("--tiny", is_flag=True, help="a few images through a small network, to see that it runs")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="file for the figures")
def main(
    folder: Path | None, device: str, repeats: int, network: str | None, tiny: bool, json_path: Path | None
) -> None:
    """Time extraction and the bare forward pass; print one table."""
    make_deterministic()
    keep_freed_memory()  # as `extract` does; the bare pass gains as much
    where = use_device(resolve_device(device))
    cases, rows = [case.on(where) for case in ((TINY,) if tiny else CASES)], []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        for case in cases:
            if network is None or network in case.name:
                rows.append(report(case, measure(case, where, Path(name), repeats)))
                if json_path is not None:
                    json_path.write_text(json.dumps({"extraction": rows}))
        hashing = measure_hashing(Path(name), repeats, tiny)
    click.echo(f"fp32 on {where}, medians of {repeats}, in turns; start-up left out")
    click.echo(pd.DataFrame(rows).to_string(index=False, float_format="%.2f"))
    click.echo(hashing.to_string(index=False, float_format="%.2f"))
    for row in hashing[hashing["share %"] > 100 * HASHING_GOAL].to_dict("records"):
        click.echo(f"MISSED: {row['images']}: digests take {row['share %']:.1f} % of decoding, goal 3 %")


if __name__ == "__main__":
    main()
