"""The machine, and images per second of Phase I: two stages of gpu.py.

Usage: python benchmarks/gpu_rates.py machine | training --device cuda --json FILE
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
import torchvision
from PIL import Image
from rich.progress import Progress

from extract.config import DatasetConfig, NetworkConfig, TrainConfig
from extract.device import make_deterministic, resolve_device, use_device
from extract.train import train

N_CLASSES = 10
MIB = 2**20


def best_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Shortest time of some work on a GPU; the first run does not count."""
    times = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def measured(device: torch.device) -> dict[str, Any]:
    """The GPU, copies to it in GB/s, and one float32 product."""
    free, total = torch.cuda.mem_get_info(device)
    host, there = (
        torch.zeros(256 * MIB, dtype=torch.uint8),
        torch.zeros(256 * MIB, dtype=torch.uint8).to(device),
    )
    pinned, square = host.pin_memory(), torch.rand(4096, 4096, device=device)
    return {
        "GPU": torch.cuda.get_device_name(device),
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
        "memory GiB": round(total / 2**30, 1),
        "free GiB": round(free / 2**30, 1),
        "pageable copy GB/s": round(len(host) / best_seconds(lambda: there.copy_(host)) / 1e9, 1),
        "pinned copy GB/s": round(len(host) / best_seconds(lambda: there.copy_(pinned)) / 1e9, 1),
        "product TFLOP/s": round(2 * 4096**3 / best_seconds(lambda: square @ square) / 1e12, 1),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """Versions, and whether torch would use TF32 for float32 products before and after we forbid it."""
    found = {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "GPUs": torch.cuda.device_count(),
        "TF32 found": {
            "products": torch.get_float32_matmul_precision(),
            "convolutions": torch.backends.cudnn.allow_tf32,
        },
    }
    make_deterministic()
    found["TF32 used"] = {
        "products": torch.get_float32_matmul_precision(),
        "convolutions": torch.backends.cudnn.allow_tf32,
    }
    return found | (measured(device) if device.type == "cuda" else {})


def write_images(root: Path, n_images: int) -> None:
    """Write class folders of 32×32 noise, and a test image per class."""
    rng = np.random.default_rng(0)
    for split, n in (("train", n_images), ("test", N_CLASSES)):
        for i, pixels in enumerate(rng.integers(0, 256, (n, 32, 32, 3), np.uint8)):
            folder = root / split / f"class {i % N_CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{i}.png", compress_level=1)


def training(device: torch.device, tiny: bool, path: Path | None) -> dict[str, Any]:
    """Images per second of epochs after the first, without the evaluation; written after each network."""
    n_images, epochs, batch = (40, 2, 20) if tiny else (4096, 4, 128)
    cases = [("resnet32", None, "fp32"), ("resnet18-cifar", None, "fp32"), ("resnet18-cifar", None, "bf16")]
    rows = []
    with tempfile.TemporaryDirectory() as name, Progress(disable=True) as quiet:
        write_images(Path(name) / "images", n_images)
        dataset = DatasetConfig("imagefolder", root=f"{name}/images")
        for i, (arch, width, precision) in enumerate([("resnet8", 4, "fp32")] if tiny else cases):
            config = TrainConfig(
                out=f"{name}/{i}",
                network=NetworkConfig(arch, width=width),
                dataset=dataset,
                image_size=32,
                epochs=epochs,
                batch_size=batch,
                precision=precision,
                device=str(device),
                eval_every=epochs + 1,
            )
            train(config, quiet)
            seconds = pd.read_csv(f"{name}/{i}/metrics.csv")["seconds"].iloc[1 : -1 if epochs > 2 else None]
            rows.append(
                {"network": arch, "precision": precision, "images/s": float(n_images / seconds.median())}
            )
            print(rows[-1], flush=True)
            write({"training": rows}, path)  # a stage that is stopped keeps what it has
    return {"training": rows}


@click.command()
@click.argument("what", type=click.Choice(["machine", "training"]))
@click.option("--device", default="cuda", show_default=True)
@click.option("--tiny", is_flag=True, help="less of everything, to see that it runs")
@click.option("--json", "path", type=click.Path(path_type=Path), help="file for what is found")
def main(what: str, device: str, tiny: bool, path: Path | None) -> None:
    """Measure, and print the results."""
    where = use_device(resolve_device(device))
    found = machine(where) if what == "machine" else training(where, tiny, path)
    print(json.dumps(found, indent=1))
    write(found, path)


def write(found: dict[str, Any], path: Path | None) -> None:
    """Write results to a file in one piece, if there is one."""
    if path is not None:
        unfinished = path.with_name(path.name + ".unfinished")
        unfinished.write_text(json.dumps(found))
        unfinished.replace(path)


if __name__ == "__main__":
    main()
