"""Accuracy on images, end to end, as with a deployed checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import Progress

from analysis.accuracy import PARTS, per_class_frame, summarise
from analysis.head_tail import head_and_tail
from analysis.options import HEAD_RATIO
from extract.checkpoints.restore import restore
from extract.config import EvaluateConfig
from extract.device import Compute, make_deterministic, resolve_device, use_device
from extract.inference import by_class, predict
from extract.turned import has_turned, predict_aggregated
from store.errors import UserError


def evaluate(config: EvaluateConfig, progress: Progress) -> pd.DataFrame:
    """Run a checkpoint's network, of Phase I or with a fine-tuned head, on the images of a split.

    Rows and batches are the same as in `extract`, so that cached and direct accuracies agree image by image.

    Returns:
        The per-class frame; of a network of `--loss sla` also with n_correct_aggregated and
        accuracy_aggregated, of predictions over four turns of each image.

    Raises:
        UserError: the checkpoint, its images or the split cannot be used.
    """
    config.check()
    device = use_device(resolve_device(config.device))
    compute = Compute(device, config.precision, config.batch_size, config.workers)
    make_deterministic()
    restored = restore(Path(config.ckpt), config.root, progress, only=(config.split,), arch=config.arch)
    if config.split not in restored.dataset.splits:
        present = ", ".join(restored.dataset.splits)
        raise UserError(
            f"--split {config.split}: this data set has {present}; train with --val-per-class to have val"
        )
    split = by_class(restored.dataset.splits[config.split])
    network = restored.network.to(compute.device, memory_format=compute.memory_format)
    prediction = predict(network, split, restored.transform, compute, progress)
    checkpoint = restored.checkpoint
    counts = np.asarray(checkpoint.class_counts)
    frame = per_class_frame(split.label, prediction, checkpoint.class_names, counts, config.shot_rule)
    if has_turned(checkpoint):
        aggregate = predict_aggregated(network, checkpoint, split, restored.transform, compute, progress)
        of_turns = per_class_frame(split.label, aggregate, checkpoint.class_names, counts, config.shot_rule)
        frame[["n_correct_aggregated", "accuracy_aggregated"]] = of_turns[["n_correct", "accuracy"]]
    return frame


def summary_of(frame: pd.DataFrame, shot_rule: str) -> dict[str, Any]:
    """The summary that `evaluate` prints of a per-class frame; head and tail go by `finetune`'s ratio."""
    parts = head_and_tail(frame["n_train"].to_numpy(), HEAD_RATIO)
    summary = summarise(frame, shot_rule, dict(zip(PARTS, parts, strict=True))) | {"head_ratio": HEAD_RATIO}
    if "n_correct_aggregated" in frame:
        n_correct, accuracy = frame["n_correct_aggregated"].sum(), frame["accuracy_aggregated"].mean()
        aggregated = {"overall": 100 * n_correct / frame["n_test"].sum(), "balanced_accuracy": accuracy}
        summary["aggregated"] = {name: float(value) for name, value in aggregated.items()}
    return summary
