"""Trainings of benchmarks/phase1.sh on images of the training folder that none saw, to choose without test.

The long-tailed subset leaves most of a balanced training folder out: at imbalance 100, 36,694 of CIFAR-10's
50,000 images. The first class keeps all its images, so those held out for validation stand for it.
For each training its network alone, and with the head that val chose (trained again, seed 0).

Usage: python benchmarks/unseen_images.py DATA RUNS [NAME...]
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from phase1_table import chosen_head
from rich.progress import Progress

from extract.checkpoints.checkpoint import described
from extract.config import DatasetConfig
from extract.dataset import list_dataset
from extract.images.image_set import ImageSet


def unseen(config: DatasetConfig) -> dict[Path, str]:
    """Classes of the training images that are in no split; without any, of a class's in val.

    Args:
        config: of a training, a long-tailed subset of class folders.
    """
    with Progress(disable=True) as progress:
        subset = list_dataset(config, progress, listed_before=True)
        everything = replace(config, imbalance_factor=None, val_per_class=0)
        whole = list_dataset(everything, progress, listed_before=True)
    images: dict[Path, str] = {}
    for label, name in enumerate(subset.class_names):
        train, val, listed = (_of_class(split, label) for split in (subset.train, subset.val, whole.train))
        assert train | val <= listed, "an image of the subset is not in the training folder"
        images |= dict.fromkeys(sorted(listed - train - val or val), name)
    return images


def _of_class(split: ImageSet, label: int) -> set[Path]:
    return {Path(split.images[row]) for row in np.flatnonzero(split.label == label)}


def tailcache(*command: str | Path) -> None:
    subprocess.run(["tailcache", *command], check=True, capture_output=True)


def finetuned(folder: Path, scratch: Path) -> tuple[Path, str]:
    """Checkpoint of the head that val chose from all sweeps of a training, and what it is."""
    best = chosen_head(folder)
    method, *settings = best["configuration"].split(", ")
    options = [f"--{setting.replace('_', '-')}" for setting in settings]
    if "+" in best["method"]:
        options += ["--loss", best["method"].partition("+")[2]]
    out = scratch / "run"
    tailcache("finetune", "--store", folder / "feats.zarr", "--out", out, "--method", method, *options)
    return out / "checkpoint.pt", f"{best['method']}, {', '.join(settings)}"


def accuracy(checkpoint: Path, classes: dict[Path, str], scratch: Path) -> pd.Series:
    """Share of right predictions of each class, in %."""
    table, answers = scratch / "images.csv", scratch / "answers.csv"
    pd.DataFrame({"path": [str(path) for path in classes]}).to_csv(table, index=False)
    tailcache("predict", "--ckpt", checkpoint, "--out", answers, "--overwrite", "--top", "1", table)
    predicted = pd.read_csv(answers).set_index("path")["class_1"]
    right = pd.Series({str(path): predicted[str(path)] == name for path, name in classes.items()})
    return 100 * right.groupby(list(classes.values()), sort=False).mean()


def standard_error(accuracies: pd.Series, classes: dict[Path, str]) -> float:
    """Of the mean over classes of accuracies in %, each a share of so many images."""
    images = pd.Series(list(classes.values())).value_counts()[accuracies.index]
    return float(np.sqrt((accuracies * (100 - accuracies) / images).sum()) / len(accuracies))


def main() -> None:
    data, runs = Path(sys.argv[1]), Path(sys.argv[2])
    names = sys.argv[3:] or sorted(path.parent.name for path in runs.glob("*/phase1.json"))
    rows = []
    for name in names:
        where = runs / name / "phase1" / "config.json"
        dataset = json.loads(where.read_text())["dataset"]
        classes = unseen(described(DatasetConfig, dataset, where).moved(str(data)))
        with tempfile.TemporaryDirectory() as scratch:
            checkpoint, head = finetuned(runs / name, Path(scratch))
            found = accuracy(checkpoint, classes, Path(scratch))
            alone = accuracy(runs / name / "phase1" / "checkpoint.pt", classes, Path(scratch))
        rows.append({"training": name, "images": len(classes), "Phase I": alone.mean(), "head": head})
        rows[-1] |= {"unseen": found.mean(), "±": standard_error(found, classes)} | found.round(1).to_dict()
        print(pd.DataFrame(rows).to_string(index=False, float_format="%.2f"), flush=True)


if __name__ == "__main__":
    main()
