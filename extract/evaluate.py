"""Accuracy on images, end to end, as with a deployed checkpoint."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import Progress

from analysis.accuracy import PARTS, per_class_frame, summarise
from analysis.head_tail import head_and_tail
from analysis.options import HEAD_RATIO
from extract.checkpoints.checkpoint import file_digest
from extract.checkpoints.phase1 import SHOWN
from extract.checkpoints.restore import restore
from extract.config import EvaluateConfig
from extract.device import Compute, make_deterministic, use_device
from extract.inference.passes import by_class, predict
from extract.inference.turned import has_turned, predict_aggregated
from extract.torchrun.device import device_of_rank
from extract.torchrun.environment import n_processes
from extract.torchrun.shares import Shares, shared_out
from store.errors import UserError

OF_MACHINE = ("root", "device", "workers")  # options that may differ from process to process


def evaluate(config: EvaluateConfig, progress: Progress) -> pd.DataFrame:
    """Run a checkpoint's network, of Phase I or with a fine-tuned head, on the images of a split.

    Rows and batches are the same as in `extract`, so that cached and direct accuracies agree image by image.
    Processes of `torchrun` share them out, and each returns the whole frame.

    Returns:
        The per-class frame; of a network of `--loss sla` also with n_correct_aggregated and
        accuracy_aggregated, of predictions over four turns of each image.

    Raises:
        UserError: the checkpoint, its images or the split cannot be used, or another process is gone.
    """
    config.check()
    device = use_device(device_of_rank(config.device))
    compute = Compute(device, config.precision, config.batch_size, config.workers)
    make_deterministic()
    options = {name: value for name, value in asdict(config).items() if name not in OF_MACHINE}
    if n_processes() > 1:  # each may have a disk of its own
        options["ckpt"] = f"{config.ckpt} (SHA-256 {file_digest(Path(config.ckpt))[:SHOWN]}…)"
    with shared_out(options) as shares:
        return _evaluate(config, shares, compute, progress)


def _evaluate(config: EvaluateConfig, shares: Shares, compute: Compute, progress: Progress) -> pd.DataFrame:
    restored = restore(Path(config.ckpt), config.root, progress, only=(config.split,), arch=config.arch)
    if config.split not in restored.dataset.splits:
        present = ", ".join(restored.dataset.splits)
        raise UserError(
            f"--split {config.split}: this data set has {present}; train with --val-per-class to have val"
        )
    split = by_class(restored.dataset.splits[config.split])
    own = split.take(shares.own(len(split), config.batch_size))
    network = restored.network.to(compute.device, memory_format=compute.memory_format)
    prediction = shares.whole(predict(network, own, restored.transform, compute, progress))
    checkpoint = restored.checkpoint
    counts = np.asarray(checkpoint.class_counts)
    frame = per_class_frame(split.label, prediction, checkpoint.class_names, counts, config.shot_rule)
    if has_turned(checkpoint):
        of_own = predict_aggregated(network, checkpoint, own, restored.transform, compute, progress)
        turned = shares.whole(of_own)
        of_turns = per_class_frame(split.label, turned, checkpoint.class_names, counts, config.shot_rule)
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
