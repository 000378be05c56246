"""Folders of runs of made-up predictions, of any number of classes: what `analyze` reads, without a store."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.accuracy import per_class_frame, summarise
from analysis.tables import without_nan
from finetune.config import FinetuneConfig
from finetune.run import Run
from finetune.sampling.head_tail import split_head_tail
from store.storage.atomic import write_json

PROVENANCE = {
    "checkpoint": {"sha256": "made", "path": "/made/checkpoint.pt", "relative_path": "checkpoint.pt"},
    "config": {"dtype": "float16", "precision": "fp32", "views": 1},
    "dataset": {
        "dataset": "imagefolder",
        "root": "/made/images",
        "imbalance_factor": None,
        "val_per_class": 0,
        "fingerprint": "made",
    },
    "network": {"arch": "resnet50", "width": 64, "weights": None},
    "training": {"epochs": 100, "lr": 0.1},
}


def made_counts(n_classes: int, largest: int = 1000, smallest: int = 2) -> np.ndarray:
    """(K,) training images: an exponential long tail, in the order of the classes' names at random."""
    counts = largest * (smallest / largest) ** np.linspace(0, 1, n_classes)
    return np.random.default_rng(0).permutation(counts.round().astype(np.int64))


def made_run(
    path: Path,
    n_classes: int,
    seed: int = 0,
    per_class: int = 3,
    class_names: list[str] | None = None,
    **options: Any,
) -> Run:
    """A run of one Phase I whose tail Phase II improves; images are taken for a few classes each.

    The larger half of the classes has more test images, so that accuracy over images is another than over
    classes, in every table and curve.

    Args:
        path: of its folder, which is not written.
        n_classes: K.
        seed: of its predictions.
        per_class: test images of each class of the smaller half; the others have three times as many.
        class_names: K names; class0000, … if not given.
        options: of the run, as config.json has them.
    """
    names = class_names or [f"class{c:04d}" for c in range(n_classes)]
    counts = made_counts(n_classes)
    label = np.repeat(np.arange(n_classes), images_to_test(counts, per_class))
    rare = 1 - np.log(counts[label]) / np.log(counts.max())  # 0 for the largest class
    before = _predictions(label, 0.9 - 0.7 * rare, counts, seed=-1)
    after = _predictions(label, 0.88 - 0.4 * rare, counts, seed)
    config = (
        asdict(FinetuneConfig("made.zarr", str(path), seed=seed, method="fsa").resolved(n_classes)) | options
    )
    parts = split_head_tail(counts, config["head_ratio"])
    facts = {"head_classes": parts.head.tolist(), "tail_classes": parts.tail.tolist()}
    facts["confusing_classes"] = {str(c): [0, 1, 2] for c in facts["tail_classes"]}
    rule = config["shot_rule"]
    frames = [per_class_frame(label, predicted, names, counts, rule) for predicted in (after, before)]
    summary = summarise(frames[0], rule) | {"phase1": summarise(frames[1], rule), "select_on": "val"}
    metrics = pd.DataFrame({"iteration": [0, 3200, 6400], "loss": [np.nan, 1.0, 0.5]})
    metrics["val_balanced_accuracy"] = [40.0, 48.0, 50.0 + seed]
    metrics["val_overall"] = metrics["val_balanced_accuracy"] + 20
    predictions = pd.DataFrame(
        {"sample_index": np.arange(len(label)), "label": label, "phase1": before, "prediction": after}
    )
    provenance = {"store": PROVENANCE, "versions": {}}
    config |= {"facts": facts, "provenance": provenance}
    return Run(path, config, metrics, frames[0], predictions, summary)


def images_to_test(counts: np.ndarray, per_class: int) -> np.ndarray:
    """(K,) test images of each class."""
    return per_class * np.where(counts > np.median(counts), 3, 1)


def _predictions(label: np.ndarray, right: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Right with a probability for each image, else mostly the next class, else one of the largest."""
    rng = np.random.default_rng(seed + 1)
    large = np.argsort(-counts)[: max(1, len(counts) // 10)]
    other = np.where(rng.random(len(label)) < 0.7, (label + 1) % len(counts), rng.choice(large, len(label)))
    return np.where(rng.random(len(label)) < right, label, other)


def write_made_run(run: Run) -> Path:
    """Write what `analyze` reads; the run's folder."""
    run.path.mkdir(parents=True)
    write_json(run.path / "config.json", run.config)
    write_json(run.path / "summary.json", without_nan(run.summary))
    for name in ("metrics", "per_class", "predictions"):
        getattr(run, name).to_csv(run.path / f"{name}.csv", index=False)
    return run.path
