"""Both phases on long-tailed CIFAR-10 with ResNet-18, by the paper's recipe, beside its Table 1.

Usage: python benchmarks/gpu_phase1.py DATA, a folder with train/<class>/* and test/<class>/*. One imbalance
after the other, as many as time allows; when the program is stopped, the file of --json has what is finished.
"""

import json
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from gpu_rates import write
from rich.progress import Progress

from extract.config import DatasetConfig, ExtractConfig, NetworkConfig, TrainConfig
from extract.device import resolve_device, use_device
from extract.dump import extract
from extract.train import train
from finetune.config import FinetuneConfig
from finetune.train import finetune_in_memory

# The paper's Table 1, ResNet-18: Baseline and Ours.
TABLE_1 = {
    100: (75.16, 80.57),
    10: (90.73, 91.75),
    200: (70.22, 77.06),
    50: (82.32, 84.51),
    20: (87.24, 88.54),
}
QUIET = Progress(disable=True)


def measured(data: Path, imbalance: int, folder: Path, device: str, epochs: int | None) -> dict[str, float]:
    """Accuracies on the test set in %, of the paper too, and the seconds of each step."""
    ckpt, store = folder / "phase1" / "checkpoint.pt", folder / "feats.zarr"
    phase1 = TrainConfig(
        out=str(ckpt.parent),
        network=NetworkConfig("resnet18-cifar", width=4 if epochs else None),
        dataset=DatasetConfig("imagefolder", root=str(data), imbalance_factor=imbalance),
        image_size=32,
        recipe="cifar-lt",
        epochs=epochs,
        precision="bf16",
        eval_every=1000,
        device=device,
    )
    times = [time.perf_counter()]
    train(phase1, QUIET)
    times.append(time.perf_counter())
    extract(ExtractConfig(str(ckpt), str(store), device=device, precision="bf16"), QUIET)
    times.append(time.perf_counter())
    run = finetune_in_memory(FinetuneConfig(str(store), out=None, method="fsa", device=device), QUIET)
    times.append(time.perf_counter())
    right = run.predictions[["phase1", "prediction"]].eq(run.predictions["label"], axis=0).mean() * 100
    found = {"imbalance": imbalance, "Phase I": right["phase1"], "FSA": right["prediction"]}
    found |= dict(zip(("paper's Phase I", "paper's FSA"), TABLE_1[imbalance], strict=True))
    steps = ("train", "extract", "finetune")
    return found | {
        f"{step} s": end - start for step, (start, end) in zip(steps, pairwise(times), strict=True)
    }


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--device", default="cuda", show_default=True)
@click.option("--tiny", is_flag=True, help="two epochs of one imbalance, to see that it runs")
@click.option("--json", "path", type=click.Path(path_type=Path), help="file for what is found")
def main(data: Path, device: str, tiny: bool, path: Path | None) -> None:
    """Run both phases, and print the results."""
    use_device(resolve_device(device))
    rows = []
    for imbalance in list(TABLE_1)[: 1 if tiny else None]:
        with TemporaryDirectory() as folder:
            rows.append(measured(data, imbalance, Path(folder), device, 2 if tiny else None))
        print(json.dumps(rows[-1]), flush=True)
        write({"both phases": rows}, path)


if __name__ == "__main__":
    main()
