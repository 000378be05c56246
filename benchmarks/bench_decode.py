"""Speed of `extract` on JPEG files compared with the limit that decoding and the forward pass set.

Run with `make bench-decode`. All candidates are measured in turns, in one run:

- d: reading, decoding, resizing and cropping every file as fast as this machine can: one process for each
  core that does nothing else, with either decoder; the faster one counts;
- f: the bare forward pass of the feature network on normalised batches in memory, with all cores; a second
  time in the pieces of a batch that `extract` gives to a CPU, which nobody would call the bare pass, but
  which tells how much of `extract` is more than decoding and the network;
- extract: the program's own function, from a checkpoint file to a finished, synced store, start-up included.

On a CPU decoding and the network share the cores, so at most 1 / (1/d + 1/f) images per second can be
extracted; on a GPU they do not, and the slower one is the limit.
"""

import json
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from bench_extract import QUIET, remove, seconds
from jpeg_folder import write_class_folders
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from extract.checkpoints.checkpoint import Checkpoint, save_checkpoint
from extract.checkpoints.restore import restore
from extract.config import DatasetConfig, ExtractConfig, NetworkConfig, TrainConfig
from extract.dataset import check_readable, list_dataset
from extract.device import Compute, keep_freed_memory, make_deterministic, resolve_device, use_device
from extract.dump import extract
from extract.images.jpeg import decode_jpeg
from extract.images.transforms import Transform, evaluation_resize, normalise
from extract.images.workers import available_cores
from extract.inference.pieces import in_pieces
from extract.networks.registry import build_network
from extract.proof.record import record_images
from extract.training.preparation import transform_for

GOAL = 0.9  # fraction of the limit
N_CLASSES = 10
AT_ONCE = 64  # images that a decoding process holds
DECODERS = ("torchvision", "Pillow")


@dataclass(frozen=True)
class Case:
    """A network and the size of its images."""

    arch: str
    width: int | None
    side: int

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.arch}, {self.side}×{self.side}"


CASES = (
    Case("resnet18", None, 224),
    Case("shufflenet_v2_x0_5", None, 224),
    Case("resnet18", None, 96),
)
TINY = Case("resnet8", 4, 72)


def write_checkpoint(case: Case, root: Path, out: Path) -> Transform:
    """A checkpoint with initial weights, as `train` writes it; returns its transform."""
    network, dataset = NetworkConfig(case.arch, case.width), DatasetConfig("imagefolder", root=str(root))
    config = TrainConfig(network=network, dataset=dataset, image_size=case.side).resolved()
    listed = check_readable(list_dataset(config.dataset, QUIET), QUIET)
    transform = transform_for(config, listed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = build_network(network, N_CLASSES, case.side).state_dict()
    described = {"network": vars(network), "dataset": vars(listed.config), "transform": vars(transform)}
    checkpoint = Checkpoint(
        **described,
        class_names=listed.class_names,
        class_counts=listed.class_counts.tolist(),
        fingerprint=listed.fingerprint,
        state=state,
        epoch=config.epochs,
        config=described | {"seed": 0, "epochs": config.epochs},
        images=record_images(listed.splits, listed.per_class),
    )
    save_checkpoint(checkpoint, out)
    return transform


def decode_all(paths: list[Path], decoder: str, transform: Transform) -> int:
    """Prepare files with nothing but the libraries; returns how many."""
    side, (shorter, interpolation) = transform.image_size, evaluation_resize(transform)
    batch = torch.empty(AT_ONCE, 3, side, side, dtype=torch.uint8)
    for i, path in enumerate(paths):
        content = path.read_bytes()
        if decoder == "torchvision":
            pixels = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        else:
            pixels = TF.pil_to_tensor(Image.open(path).convert("RGB"))
        small = TF.resize(pixels, [shorter], TF.InterpolationMode(interpolation), antialias=True)
        batch[i % AT_ONCE] = TF.center_crop(small, [side, side])
    return len(paths)


def decoding(
    paths: list[Path], decoder: str, transform: Transform, pool: ProcessPoolExecutor
) -> Callable[[], None]:
    """All files through all processes of a pool, in small shares so that none waits for another."""
    shares = [paths[start : start + AT_ONCE] for start in range(0, len(paths), AT_ONCE)]

    def run() -> None:
        done = sum(pool.map(partial(decode_all, decoder=decoder, transform=transform), shares))
        assert done == len(paths)

    return run


def bare_passes(
    ckpt: Path, transform: Transform, n_images: int, compute: Compute
) -> dict[str, Callable[[], None]]:
    """The feature network on two batches in memory, in turns: values do not change its speed."""
    network = restore(ckpt, None, QUIET).network
    network.to(compute.device, memory_format=compute.memory_format)
    shape = (min(n_images, compute.batch_size), 3, transform.image_size, transform.image_size)
    batches = []
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
        ready = normalise(torch.from_numpy(pixels).to(compute.device), transform)
        batches.append(ready.contiguous(memory_format=compute.memory_format))

    @torch.inference_mode()
    def run(features: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for number, start in enumerate(range(0, n_images, len(batches[0]))):
            features(batches[number % 2][: n_images - start])

    def run_in_pieces() -> None:
        with in_pieces(network, compute) as pieces:
            run(pieces.features)

    return {"forward": partial(run, network.features), "in pieces": run_in_pieces}


def measure(case: Case, device: torch.device, root: Path, repeats: int, n_bare: int) -> pd.DataFrame:
    """Images per second: one row per repeat, one column per candidate."""
    ckpt, store = root.parent / f"{case.name}.pt", root.parent / "feats.zarr"
    transform = write_checkpoint(case, root, ckpt)
    n_processes = available_cores()
    config = ExtractConfig(str(ckpt), str(store), device=str(device), workers=n_processes)
    compute = Compute(device, config.precision, config.batch_size, config.workers)
    paths, taken = sorted(root.rglob("*.jpg")), []
    n_images = {name: len(paths) for name in (*DECODERS, "extract")}
    n_images |= dict.fromkeys(("forward", "in pieces"), n_bare)
    # Forked before this process computes anything; decoding is the only work that these processes ever do.
    with ProcessPoolExecutor(n_processes, get_context("fork"), torch.set_num_threads, (1,)) as pool:
        ways = {name: decoding(paths, name, transform, pool) for name in DECODERS}
        ways |= bare_passes(ckpt, transform, n_bare, compute)
        ways["extract"] = lambda: extract(config, QUIET) and None
        for repeat in range(repeats + 1):
            names = list(ways)[repeat % len(ways) :] + list(ways)[: repeat % len(ways)]
            row = {}
            for name in names:
                row[name] = n_images[name] / seconds(ways[name], device)
                remove(store)
            taken.append(row)
    return pd.DataFrame(taken[1:])[list(ways)]  # the first warms up


def report(case: Case, taken: pd.DataFrame, device: torch.device) -> dict[str, object]:
    """A row of the table; prints a missed goal at once. The limit is that of the same repeat."""
    decode = taken[list(DECODERS)].max(axis=1)
    limits = {}
    for name in ("forward", "in pieces"):
        shared = 1 / (1 / decode + 1 / taken[name])
        limits[name] = np.minimum(decode, taken[name]) if device.type == "cuda" else shared
    ratio = (taken["extract"] / limits["forward"]).median()
    row: dict[str, object] = {"network": case.name}
    row |= {f"{name} images/s": taken[name].median() for name in DECODERS}
    row |= {"d": decode.median(), "f": taken["forward"].median(), "limit": limits["forward"].median()}
    row |= {"extract": taken["extract"].median(), "ratio": ratio}
    row["f in pieces"] = taken["in pieces"].median()
    row["ratio to it"] = (taken["extract"] / limits["in pieces"]).median()
    if ratio < GOAL:
        click.echo(f"MISSED: {case.name}: {ratio:.2f} of the limit, goal {GOAL}")
    return row


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="on the disk to use; a temporary one else")
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda or cuda:N")
@click.option("--n", "n_images", default=2000, show_default=True, help="JPEG files")
@click.option("--repeats", default=3, show_default=True, help="repeats of every candidate, in turns")
@click.option("--network", help="only networks whose name contains this")
@click.option("--tiny", is_flag=True, help="a few images through a small network, to see that it runs")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="file for the figures")
def main(
    folder: Path | None,
    device: str,
    n_images: int,
    repeats: int,
    network: str | None,
    tiny: bool,
    json_path: Path | None,
) -> None:
    """Time decoding, the forward pass and extraction; print one table."""
    make_deterministic()
    keep_freed_memory()  # as `extract` does; the bare pass gains as much
    where, rows = use_device(resolve_device(device)), []
    n_images = 2 * N_CLASSES if tiny else n_images
    with tempfile.TemporaryDirectory(dir=folder) as name:
        n_bytes = write_class_folders(Path(name) / "images", n_images, N_CLASSES)
        for case in (TINY,) if tiny else CASES:
            if network is None or network in case.name:
                taken = measure(case, where, Path(name) / "images", repeats, min(n_images, 512))
                rows.append(report(case, taken, where))
                if json_path is not None:
                    json_path.write_text(json.dumps({"decoding": rows}))
    click.echo(
        f"{n_images:,} JPEG files of 500×375, {n_bytes / n_images / 1000:.0f} kB each; fp32 on {where}, "
        f"{available_cores()} cores; medians of {repeats}, in turns; images per second"
    )
    click.echo(pd.DataFrame(rows).to_string(index=False, float_format="%.2f"))


if __name__ == "__main__":
    main()
