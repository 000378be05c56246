"""Heads of a sweep that share a plan: trained or computed together, with folds first on each of them."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from analysis.accuracy import group_accuracies
from extract.heads.kinds import Layer
from finetune.config import FinetuneConfig
from finetune.cross_validation.folds import CrossValidation
from finetune.cross_validation.options import CV
from finetune.cross_validation.scores import Scores
from finetune.methods.registry import METHODS
from finetune.one_head import posthoc_head
from finetune.sampling.head_tail import split_head_tail
from finetune.sweep.folder import SweepFolder, head_id
from finetune.training.selection import Judge, OnSplit, selection_split
from finetune.training.trainer import LoadedStore, Trainer
from store.errors import UserError
from store.notes import note

Batch = list[FinetuneConfig]  # heads that share a plan, or a single post-hoc head


@dataclass
class Made:
    """A head, and how it came about.

    Attributes:
        layer: the head itself; None if it could not be computed.
        kept_iteration: the iteration that it is of.
        diverged_at: iteration at which its loss became NaN or infinite, 0 for a computed head; None if it
            never did.
    """

    layer: Layer | None
    kept_iteration: int
    diverged_at: int | None


def train_batch(
    batch: Batch,
    loaded: LoadedStore,
    folds: CrossValidation | None,
    folder: SweepFolder,
    status: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Train or compute the heads of a batch, write their rows, and return them.

    A head that diverges in a fold has no score there, so it counts as diverged.

    Args:
        batch: resolved options of the heads.
        loaded: the store.
        folds: its folds; None without `--select-on cv`.
        folder: of the sweep, or of a contest.
        status: shows what is being done.
    """
    started = time.perf_counter()
    scores, in_folds = None, []
    if folds is not None:
        scores = folds.scores(len(batch))
        for i, fold in enumerate(folds):
            where = f", fold {i + 1} of {folds.n_folds}"
            made = _made(batch, fold, scores.of_fold(fold), lambda text, of=where: status(text + of))
            in_folds.append([head.diverged_at for head in made])
    judge = None
    if batch[0].keep == "best":
        judge = scores or OnSplit(selection_split(loaded.held_out, batch[0].select_on), loaded.threads)
    made = _made(batch, loaded, judge, status)
    loaded.store.check_not_replaced()  # its maps were read by path until now
    seconds = (time.perf_counter() - started) / len(batch)
    rows = []
    for head, (config, one) in enumerate(zip(batch, made, strict=True)):
        diverged = [
            at for at in (*(of_fold[head] for of_fold in in_folds), one.diverged_at) if at is not None
        ]
        course = {"kept_iteration": one.kept_iteration, "diverged_at": diverged[0] if diverged else None}
        ratio = config.head_ratio if folder.head_ratio is None else folder.head_ratio
        found = {} if diverged else head_accuracies(head, one, loaded, scores, ratio)
        rows.append({"head": head_id(config)} | course | found | {"seconds": seconds})
    held = [
        None if scores is None or row["diverged_at"] is not None else scores.images(head)
        for head, row in enumerate(rows)
    ]
    folder.keep(rows, [one.layer for one in made], held)
    return rows


def evaluate_every(config: FinetuneConfig) -> int:
    """Iterations between evaluations: `eval_every` for early stopping, else once at the end."""
    return config.eval_every if config.keep == "best" else config.iterations


def _made(
    batch: Batch, loaded: LoadedStore, judge: Judge | None, status: Callable[[str], None]
) -> list[Made]:
    """The heads of a batch, from all rows or from those of a fold."""
    if METHODS[batch[0].method].compute is not None:
        return [_computed(batch[0], loaded, judge)]
    return _trained(batch, loaded, judge, status)


def _computed(config: FinetuneConfig, loaded: LoadedStore, judge: Judge | None) -> Made:
    try:
        layer = posthoc_head(config, loaded)
    except UserError as error:  # its weights are NaN or infinite
        note(f"a head is left out: {error}")
        return Made(None, 0, 0)
    if judge is not None:
        judge(0, 0, layer)
    return Made(layer, 0, None)


def _trained(
    batch: Batch, loaded: LoadedStore, judge: Judge | None, status: Callable[[str], None]
) -> list[Made]:
    first = batch[0]
    trainer = Trainer(batch, loaded, judge)
    trainer.evaluate()
    heads = f"{len(batch)} heads, {first.method}" if len(batch) > 1 else first.method
    with closing(trainer.run(evaluate_every(first))) as windows:
        for _ in windows:
            status(f"{heads}: {trainer.iteration:,} of {first.iterations:,} iterations")
    return [
        Made(
            layer,
            history.kept_iteration(config.keep),
            history.diverged.iteration if history.diverged else None,
        )
        for config, history, layer in zip(batch, trainer.histories, trainer.layers(), strict=True)
    ]


def head_accuracies(
    head: int, made: Made, loaded: LoadedStore, scores: Scores | None, head_ratio: float
) -> dict[str, float]:
    """val_overall, …, cv_overall, …, test_tail: the only evaluation on test, after training."""
    parts = split_head_tail(loaded.common.class_counts, head_ratio).parts()
    frames = {
        name: split.frame(split.predict(made.layer, loaded.threads))
        for name, split in loaded.held_out.items()
    }
    if scores is not None:
        frames[CV] = scores.frame(head, made.kept_iteration)
    return {
        f"{name}_{group}": value
        for name, frame in frames.items()
        for group, value in group_accuracies(frame, parts).items()
    }
