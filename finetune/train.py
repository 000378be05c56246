"""Phase II: fine-tune the FC layer alone on cached features (paper, secs. 4.2 and 4.3)."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.progress import Progress

from analysis.accuracy import group_accuracies, summarise
from extract.device import resolve_device
from finetune.config import FinetuneConfig
from finetune.confusion import confusing_classes, mean_scores
from finetune.features import Features, HeldOut, load_features, load_held_out
from finetune.fusion import fuse
from finetune.head import Head
from finetune.masks import generic_positions, specific_positions
from finetune.methods import METHODS
from finetune.plan import Drawing, Plan
from finetune.run import Run, find_phase1, foreign_to_run, write_run
from finetune.split import split_head_tail
from store.atomic import refuse_existing
from store.cache import open_cache
from store.errors import UserError
from store.location import locate
from store.provenance import versions
from store.reader import FeatureStore

WINDOW = 64  # iterations whose batches are put together at once


def finetune(config: FinetuneConfig, progress: Progress) -> Run:
    """Fine-tune one head from a store and write its run folder.

    Two runs with one seed give the same bytes in head.pt.

    Raises:
        UserError: the store, the options or the folder cannot be used.
    """
    started = time.perf_counter()
    store = FeatureStore(locate(config.store), open_cache(config.cache, config.cache_gib))
    config = config.resolved(len(store.class_names))
    refuse_existing(Path(config.out), "run", foreign_to_run, config.overwrite)
    device = resolve_device(config.device)
    phase1 = find_phase1(store, config.ckpt)
    features = load_features(store, METHODS[config.method].uses_maps, device)
    held_out = load_held_out(store, config.shot_rule, device)
    loaded = time.perf_counter()

    drawing = prepare_drawing(config, store)
    plan = METHODS[config.method].draw(drawing)
    planned = time.perf_counter()

    head = Head(*(torch.from_numpy(p).to(device) for p in store.classifier), config.lr, config.momentum)
    before = [split.predict(head) for split in held_out]
    metrics = run_plan(head, plan, features, config, lambda: _accuracies(head, held_out), progress)
    trained = time.perf_counter()

    facts = _facts(drawing, plan) | {
        "seconds": {"load": loaded - started, "plan": planned - loaded, "train": trained - planned}
    }
    run = _describe(config, store, metrics, held_out, before, [s.predict(head) for s in held_out], facts)
    write_run(run, head.weight, head.bias, phase1)
    return run


def prepare_drawing(config: FinetuneConfig, store: FeatureStore) -> Drawing:
    """Gather what the plan is drawn from: classes, confusing classes and, for maps, position sets.

    Raises:
        UserError: there is no tail class, or the feature maps have one position only.
    """
    train = store.read("train")
    class_counts = np.bincount(train.label, minlength=len(store.class_names))
    head_tail = split_head_tail(class_counts, config.head_ratio)
    if METHODS[config.method].uses_tail and not len(head_tail.tail):
        raise UserError(
            f"--head-ratio {config.head_ratio}: takes all {len(class_counts)} classes as head and leaves "
            "no tail; lower it, use a long-tailed data set (train --imbalance-factor), or --method plain"
        )
    confusing = specific = generic = None
    if METHODS[config.method].uses_maps:
        _, height, width, _ = store.map_shape
        if height * width == 1:
            raise UserError(
                f"{store.path}: its feature maps are 1×1, with nothing to fuse; extract from a network with "
                "larger maps (resnet18-cifar for 32×32 images, say), or use --method no-aug"
            )
        cam = store.read_cam()
        specific, generic = specific_positions(cam, config.tau_s), generic_positions(cam, config.tau_g)
        scores = mean_scores(train.pooled, *store.classifier, train.label)
        confusing = confusing_classes(scores, config.confusing_classes)
    return Drawing(
        label=train.label,
        head_tail=head_tail,
        confusing=confusing,
        specific=specific,
        generic=generic,
        n_iterations=config.iterations,
        n_tail=config.n_tail,
        n_augmented=config.augmented_per_sample,
        tail_draw=config.tail_draw,
        seed=config.seed,
    )


def run_plan(
    head: Head,
    plan: Plan,
    features: Features,
    config: FinetuneConfig,
    accuracies: Callable[[], dict[str, float]],
    progress: Progress,
) -> pd.DataFrame:
    """Take one SGD step on every batch of a plan.

    Returns:
        A row every `eval_every` iterations, and for iteration 0 and the last: iteration, loss (mean since
        the row before; NaN at 0) and what `accuracies()` gives at that moment.
    """
    task = progress.add_task(f"fine-tuning ({config.method})", total=len(plan.real_row), status="")
    rows, losses = [{"iteration": 0, "loss": np.nan} | accuracies()], []
    for iteration, (pooled, label) in enumerate(batches(plan, features), start=1):
        losses.append(head.step(pooled, label))
        if iteration % config.eval_every == 0 or iteration == len(plan.real_row):
            loss = torch.stack(losses).mean().item()
            losses.clear()
            if not (np.isfinite(loss) and head.is_finite()):
                raise UserError(f"{config.out}: diverged by iteration {iteration} (loss {loss}); lower --lr")
            rows.append({"iteration": iteration, "loss": loss} | accuracies())
            status = f"loss {loss:.3f}  accuracy {rows[-1]['overall']:.1f}"
            progress.update(task, completed=iteration, status=status)
    return pd.DataFrame(rows)


def batches(plan: Plan, features: Features) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of a plan: pooled (B, C) float32 and label (B,) int64, B = R + A.

    Each batch is its real rows (tail, then head) followed by its augmented ones, which carry the label of
    the tail row that they vary. A window of iterations is gathered and fused in one go.
    """
    device = features.pooled.device
    for start in range(0, len(plan.real_row), WINDOW):
        window = slice(start, start + WINDOW)
        real_row = torch.from_numpy(plan.real_row[window]).to(device)
        pooled, label = features.pooled[real_row], features.label[real_row]
        if plan.augmented_row.shape[1]:
            augmented = fuse(features.table, torch.from_numpy(plan.vectors[window]).to(device))
            augmented_row = torch.from_numpy(plan.augmented_row[window]).to(device)
            pooled = torch.cat([pooled, augmented], dim=1)
            label = torch.cat([label, features.label[augmented_row]], dim=1)
        yield from zip(pooled, label, strict=True)


def _accuracies(head: Head, held_out: list[HeldOut]) -> dict[str, float]:
    row = {}
    for split in held_out:
        prefix = "" if split.name == "test" else f"{split.name}_"
        of_split = group_accuracies(split.frame(split.predict(head)))
        row |= {prefix + name: accuracy for name, accuracy in of_split.items()}
    return row


def _facts(drawing: Drawing, plan: Plan) -> dict[str, Any]:
    """What a user asks of a run's draws: its classes, and how often an empty set fell back."""
    facts = {"head_classes": drawing.head_tail.head.tolist(), "tail_classes": drawing.head_tail.tail.tolist()}
    if plan.augmented_row.size:
        facts["confusing_classes"] = {
            str(c): drawing.confusing[c].tolist() for c in drawing.head_tail.tail.tolist()
        }
        facts["empty_specific_percent"] = 100 * float(drawing.specific.was_empty[plan.augmented_row].mean())
        facts["empty_generic_percent"] = 100 * float(drawing.generic.was_empty[plan.donor_row].mean())
    return facts


def _describe(
    config: FinetuneConfig,
    store: FeatureStore,
    metrics: pd.DataFrame,
    held_out: list[HeldOut],
    before: list[np.ndarray],
    after: list[np.ndarray],
    facts: dict[str, Any],
) -> Run:
    summary: dict[str, Any] = {}
    for split, phase1, prediction in zip(held_out, before, after, strict=True):
        of_split = summarise(split.frame(prediction), config.shot_rule)
        of_split["phase1"] = summarise(split.frame(phase1), config.shot_rule)
        summary |= of_split if split.name == "test" else {split.name: of_split}
    test, phase1, prediction = held_out[-1], before[-1], after[-1]
    predictions = pd.DataFrame(
        {"sample_index": test.sample_index, "label": test.label, "phase1": phase1, "prediction": prediction}
    )
    provenance = {"store": store.provenance, "versions": versions()}
    content = asdict(config) | {"facts": facts, "provenance": provenance}
    return Run(Path(config.out), content, metrics, test.frame(prediction), predictions, summary)
