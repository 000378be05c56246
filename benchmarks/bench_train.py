"""Speed of `train` beside a bare loop of the same network on data in memory.

Run with `make bench-train`. All candidates are measured in turns, in one run:

- t: a bare loop: forward pass, cross-entropy, backward pass and a step of SGD with momentum on two normalised
  batches in memory, in turns, with all cores;
- d: where images are files, decoding, a random crop and a mirror image of every file as fast as this machine
  can: one process for each core that does nothing else;
- train: the program's own function; images per second of its epochs as metrics.csv gives them, but for the
  first one (in which workers start) and the last one (in which it evaluates); d and t are means of a
  measurement before it and one after;
- no gate: on CPUs, where images are files, the same with workers that also decode during steps.

Then, unless a network is named, the first one's training with each augmentation beside one without, and in
two processes (gloo, a core each) beside one process that has both cores.

Images of at most 64 pixels are decoded once and kept in memory, so the limit is t. For larger ones decoding
and the network share the cores of a CPU: at most 1 / (1/d + 1/t); with a GPU the slower one is the limit.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import click
import numpy as np
import pandas as pd
import torch
from bench_extract import QUIET
from jpeg_folder import write_class_folders
from torch.nn.functional import cross_entropy

from extract.config import DatasetConfig, NetworkConfig, TrainConfig
from extract.device import Compute, make_deterministic, resolve_device, use_device
from extract.images.augmentation.config import AugmentConfig
from extract.images.gate import Gate
from extract.images.preparation import IN_MEMORY_SIZE
from extract.images.transforms import Transform, image_views
from extract.images.workers import available_cores
from extract.networks.registry import build_network
from extract.train import train

GOAL = 0.9  # fraction of the limit
N_CLASSES = 10
EPOCHS = 4  # of a training: two are counted
AT_ONCE = 64  # images that a decoding process holds, at most


@dataclass(frozen=True)
class Case:
    """A network, the size of its images, the size of a batch, and how many images there are."""

    arch: str
    width: int | None
    side: int
    batch_size: int
    n_images: int

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.arch}{f' of width {self.width}' if self.width else ''}, {self.side}×{self.side}"


CASES = (
    Case("resnet32", None, 32, 128, 2400),
    Case("resnet18-cifar", 16, 32, 128, 2400),
    Case("resnet18", None, 96, 64, 1200),
    Case("shufflenet_v2_x0_5", None, 96, 64, 2400),
    Case("resnet50", None, 224, 16, 64),
)
TINY = (Case("resnet8", 4, 32, 8, 40), Case("resnet8", 4, 72, 8, 40))
AUGMENTATIONS = {
    "crops and mirror images alone": AugmentConfig(),
    "AutoAugment": AugmentConfig(augment="autoaugment"),
    "RandAugment": AugmentConfig(augment="randaugment"),
    "TrivialAugment": AugmentConfig(augment="trivialaugment"),
    "AutoAugment, Cutout": AugmentConfig(augment="autoaugment", cutout=16),
    "Cutout": AugmentConfig(cutout=16),
    "random erasing": AugmentConfig(erasing=0.5),
    "jitter": AugmentConfig(jitter=0.4),
    "mixup": AugmentConfig(mixup=1.0),
    "CutMix": AugmentConfig(cutmix=1.0),
    "mixup of features": AugmentConfig(mixup_features=1.0),
    "mixup, Remix": AugmentConfig(mixup=1.0, remix=True),
}
FEW = ("crops and mirror images alone", "mixup")  # to see that it runs
PROGRAM = Path(__file__).parents[1] / "cli.py"


def bare_loop(case: Case, n_steps: int, compute: Compute) -> Callable[[], None]:
    """Steps of SGD on two batches in memory, in turns: values do not change its speed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(NetworkConfig(case.arch, case.width), N_CLASSES, case.side).train()
    network.to(compute.device, memory_format=compute.memory_format)
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, 0.9, weight_decay=2e-4)
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(2):
        images = torch.randn(case.batch_size, 3, case.side, case.side, generator=generator)
        labels = torch.randint(N_CLASSES, (case.batch_size,), generator=generator)
        images = images.to(compute.device).contiguous(memory_format=compute.memory_format)
        batches.append((images, labels.to(compute.device)))

    def run() -> None:
        for step in range(n_steps):
            images, labels = batches[step % 2]
            loss = cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if compute.device.type == "cuda":
            torch.cuda.synchronize(compute.device)

    return run


def decode_share(share: list[tuple[int, Path]], transform: Transform) -> int:
    """Read, decode, crop and mirror some files, with nothing but the program's own function."""
    for seed, path in share:
        image_views(path, transform, [seed])
    return len(share)


def decoding(paths: list[Path], transform: Transform, pool: ProcessPoolExecutor) -> Callable[[], None]:
    """All files through all processes of a pool."""
    numbered, at_once = list(enumerate(paths)), min(AT_ONCE, -(-len(paths) // available_cores()))
    shares = [numbered[start : start + at_once] for start in range(0, len(paths), at_once)]

    def run() -> None:
        assert sum(pool.map(partial(decode_share, transform=transform), shares)) == len(paths)

    return run


def trained(
    case: Case, root: Path, out: Path, compute: Compute, augmentation: AugmentConfig | None = None
) -> float:
    """Images per second of the epochs between the first and the last one."""
    config = TrainConfig(
        out=str(out),
        network=NetworkConfig(case.arch, case.width),
        dataset=DatasetConfig("imagefolder", root=str(root)),
        image_size=case.side,
        epochs=EPOCHS,
        batch_size=case.batch_size,
        lr=1e-3,
        device=str(compute.device),
        workers=compute.workers,
        eval_every=EPOCHS,
        overwrite=True,
        augmentation=augmentation or AugmentConfig(),
    )
    return rate_of(pd.DataFrame(train(config, QUIET).history), root)


def no_gate() -> AbstractContextManager:
    """Workers that nobody stops, as on machines where they have cores of their own."""
    return mock.patch.object(Gate, "close")


def rate_of(history: pd.DataFrame, root: Path) -> float:
    """Images per second of the epochs between the first and the last one."""
    n_images = sum(1 for _ in (root / "train").rglob("*.jpg"))
    return n_images / float(history["seconds"].iloc[1:-1].median())


def trained_by(n_processes: int, case: Case, root: Path, out: Path) -> float:
    """Images per second of the command line in one process, or in several of `torchrun`, on the CPU."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes)]
    options = ["--dataset", "imagefolder", "--root", root, "--arch", case.arch, "--image-size", case.side]
    options += [] if case.width is None else ["--width", case.width]
    options += ["--epochs", EPOCHS, "--eval-every", EPOCHS, "--batch-size", case.batch_size, "--lr", 0.001]
    options += ["--device", "cpu", "--out", out, "--overwrite"]
    command = [sys.executable, *(several if n_processes > 1 else []), PROGRAM, "train", *options]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return rate_of(pd.read_csv(out / "metrics.csv"), root)


def measure_ways(
    case: Case, device: torch.device, folder: Path, repeats: int, augmentations: dict[str, AugmentConfig]
) -> pd.DataFrame:
    """Images per second of one training in several ways: one row per repeat, one column per way."""
    root = folder / "images"
    write_class_folders(root, case.n_images // 2, N_CLASSES)
    compute = Compute(device, "fp32", case.batch_size, available_cores())
    ways = {
        name: partial(trained, case, root, folder / "run", compute, augmentation)
        for name, augmentation in augmentations.items()
    }
    if device.type == "cpu" and augmentations is AUGMENTATIONS:
        named = {1: "one process", available_cores(): f"{available_cores()} processes"}
        ways |= {name: partial(trained_by, n, case, root, folder / "run") for n, name in named.items()}
    return pd.DataFrame([{name: way() for name, way in ways.items()} for _ in range(repeats)])


def report_ways(taken: pd.DataFrame) -> list[dict[str, object]]:
    """Rows of the table, each with its ratio to its plain way; prints at once where processes are slower."""
    plain, rows = next(iter(AUGMENTATIONS)), []
    for name in taken:
        beside = plain if name in AUGMENTATIONS else "one process"
        ratio = (taken[name] / taken[beside]).median()
        rows.append(
            {"training with": name, "images/s": taken[name].median(), "beside": beside, "ratio": ratio}
        )
        if name not in AUGMENTATIONS and ratio < 1:
            click.echo(f"MISSED: {name}: {ratio:.2f} of {beside}, goal 1")
    return rows


def timed(action: Callable[[], None]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def measure(case: Case, device: torch.device, folder: Path, repeats: int) -> pd.DataFrame:
    """Images per second: one row per repeat, one column per candidate."""
    root = folder / "images"
    write_class_folders(root, case.n_images, N_CLASSES)
    compute = Compute(device, "fp32", case.batch_size, available_cores())
    paths, taken = sorted((root / "train").rglob("*.jpg")), []
    n_steps, decodes = -(-len(paths) // case.batch_size), case.side > IN_MEMORY_SIZE
    with ProcessPoolExecutor(available_cores(), get_context("fork"), torch.set_num_threads, (1,)) as pool:
        decode = decoding(paths, Transform(case.side, upright=True, white={}), pool)
        loop = bare_loop(case, n_steps, compute)
        for _ in range(repeats + 1):
            before = timed(decode) if decodes else 0, timed(loop)
            row = {"train": trained(case, root, folder / "run", compute)}
            after = timed(decode) if decodes else 0, timed(loop)  # machines drift within a minute
            decoding_alone, computing = np.mean([before, after], axis=0)
            row["d"] = len(paths) / decoding_alone if decodes else np.inf
            row |= {"t": n_steps * case.batch_size / computing, "no gate": row["train"]}
            if decodes and device.type == "cpu":
                with no_gate():
                    row["no gate"] = trained(case, root, folder / "run", compute)
            taken.append(row)
    return pd.DataFrame(taken[1:])  # the first warms up


def report(case: Case, taken: pd.DataFrame, device: torch.device) -> dict[str, object]:
    """A row of the table; prints a missed goal at once. The limit is that of the same repeat."""
    shared = 1 / (1 / taken["d"] + 1 / taken["t"])
    limit = np.minimum(taken["d"], taken["t"]) if device.type == "cuda" else shared
    ratio = (taken["train"] / limit).median()
    if ratio < GOAL:
        click.echo(f"MISSED: {case.name}: {ratio:.2f} of the limit, goal {GOAL}")
    row: dict[str, object] = {"network": case.name, "batch": case.batch_size}
    row |= {name: taken[name].median() for name in ("d", "t")}
    row |= {"limit": limit.median(), "train": taken["train"].median(), "ratio": ratio}
    return row | {
        "no gate": taken["no gate"].median(),
        "by gate": (taken["train"] / taken["no gate"]).median(),
    }


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="on the disk to use; a temporary one else")
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda or cuda:N")
@click.option("--repeats", default=3, show_default=True, help="repeats of every candidate, in turns")
@click.option("--network", help="only networks whose name contains this")
@click.option("--tiny", is_flag=True, help="a few images through small networks, to see that it runs")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="file for the figures")
def main(
    folder: Path | None,
    device: str,
    repeats: int,
    network: str | None,
    tiny: bool,
    json_path: Path | None,
) -> None:
    """Time a bare loop, decoding and training; print one table."""
    make_deterministic()
    where, rows = use_device(resolve_device(device)), []
    cases = [case for case in (TINY if tiny else CASES) if network is None or network in case.name]
    for case in cases:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            rows.append(report(case, measure(case, where, Path(name), repeats), where))
        if json_path is not None:
            json_path.write_text(json.dumps({"training": rows}))
    click.echo(
        f"JPEG files of 500×375, {available_cores()} cores, fp32 on {where}; medians of {repeats}, in turns; "
        "images per second; d is inf where images stay in memory"
    )
    click.echo(pd.DataFrame(rows).to_string(index=False, float_format="%.2f"))
    chosen = {name: AUGMENTATIONS[name] for name in FEW} if tiny else AUGMENTATIONS
    for case in cases[:1] if network is None else ():
        with tempfile.TemporaryDirectory(dir=folder) as name:
            ways = report_ways(measure_ways(case, where, Path(name), repeats, chosen))
        if json_path is not None:
            json_path.write_text(json.dumps({"training": rows, "ways": ways}))
        click.echo(f"{case.name}, {case.n_images // 2} images:")
        click.echo(pd.DataFrame(ways).to_string(index=False, float_format="%.2f"))


if __name__ == "__main__":
    main()
