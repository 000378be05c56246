"""Phase II: fine-tune only the FC layer, on cached features (paper, secs. 4.2 and 4.3)."""

import time
from collections.abc import Collection
from contextlib import closing
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.progress import Progress

from analysis.accuracy import in_words, is_score, summarise
from extract.device import keep_freed_memory, make_deterministic, resolve_device, use_device
from extract.training.unfinished import note_extracted_early
from finetune.config import FinetuneConfig
from finetune.heads.threads import single_threaded
from finetune.methods.registry import METHODS
from finetune.run import Head, Run, check_provenance, find_phase1, write_run
from finetune.run_folder import foreign_to_run
from finetune.sampling.head_tail import parts_of, split_head_tail
from finetune.store_identity import StoreIdentity, identify
from finetune.training.history import HeadHistory
from finetune.training.inputs import posthoc_layer
from finetune.training.resume import LatestState, UnfinishedRun
from finetune.training.selection import Layer, accuracies, check_selection, selection_split
from finetune.training.trainer import LoadedStore, Trainer, class_facts
from store.arrays.image_names import image_names
from store.errors import UserError
from store.names import shown
from store.provenance import versions
from store.reader import FeatureStore
from store.storage.atomic import check_not_both, check_replaceable
from store.storage.cache import open_cache
from store.storage.location import locate
from store.storage.lock import sole_writer


def finetune(
    config: FinetuneConfig,
    progress: Progress,
    named: Collection[str] = (),
    store: FeatureStore | None = None,
) -> Run:
    """Fine-tune one head from a store and write its run folder.

    Two runs with the same seed write the same bytes to head.pt, wherever the maps live and even if one was
    interrupted and resumed.

    Args:
        config: the options.
        progress: shows the iterations.
        named: names of the options that the user gave.
        store: the store that `config` names, if it is open already.

    Raises:
        UserError: the store, an option or the folder cannot be used, or the loss became NaN or infinite.
        Interrupted: on Ctrl-C; the same options with `resume` continue the run.
    """
    started = time.perf_counter()
    store = store or _opened(config)
    config = _resolved(config, store)
    with sole_writer(Path(config.out), "run"):
        unfinished = UnfinishedRun(config, store, named)
        return _finetune(unfinished, store, started, progress)


def _finetune(unfinished: UnfinishedRun, store: FeatureStore, started: float, progress: Progress) -> Run:
    """`finetune`, with the folder locked; `started` is a time of `time.perf_counter`."""
    config = unfinished.config
    unfinished.check_replaceable(config.resume, config.overwrite)
    # An unfinished run beside a finished one was started with --overwrite.
    may_replace = config.overwrite or (config.resume and unfinished.path.exists())
    check_replaceable(Path(config.out), "run", foreign_to_run, may_replace)
    phase1 = find_phase1(store, config.ckpt)
    with unfinished.saved_when_interrupted():
        unfinished.load()
        run = _train_and_evaluate(config, store, unfinished.identity, unfinished.latest, started, progress)
        write_run(run, phase1, config.tensorboard)
        unfinished.remove()
    return run


def finetune_in_memory(config: FinetuneConfig, progress: Progress, store: FeatureStore | None = None) -> Run:
    """Like `finetune`, but write nothing: the run holds the head, and Phase I's checkpoint is not needed.

    Args:
        config: the options; `out` is None.
        progress: shows the iterations.
        store: the store that `config` names, if it is open already.

    Raises:
        UserError: the store or an option cannot be used, or the loss became NaN or infinite.
    """
    started = time.perf_counter()
    store = store or _opened(config)
    config = _resolved(config, store)
    check_provenance(store)
    return _train_and_evaluate(config, store, identify(store), LatestState(), started, progress)


def _opened(config: FinetuneConfig) -> FeatureStore:
    return FeatureStore(locate(config.store), open_cache(config.cache, config.cache_gib))


def _resolved(config: FinetuneConfig, store: FeatureStore) -> FinetuneConfig:
    """Check and resolve the options, and set the process up for a run."""
    store.check_not_replaced()
    keep_freed_memory()
    make_deterministic()
    config = config.resolved(len(store.class_names))
    note_extracted_early(store)
    _check_options(config)
    return config


def _train_and_evaluate(
    config: FinetuneConfig,
    store: FeatureStore,
    identity: StoreIdentity,
    latest: LatestState,
    started: float,
    progress: Progress,
) -> Run:
    """Train or compute the head, starting from the latest state, and evaluate it."""
    with single_threaded() as threads:
        loaded = LoadedStore.open(store, config.shot_rule, use_device(resolve_device(config.device)), threads)
        if config.keep == "best":
            check_selection(selection_split(loaded.held_out, config.select_on), "--keep best")
        ready = time.perf_counter()
        if METHODS[config.method].compute is not None:
            layer, history, facts = _compute_head(config, loaded)
        else:
            layer, history, facts = _train_head(config, loaded, latest, progress)
        ended = time.perf_counter()
        store.check_not_replaced()  # its maps were read by path until now
        facts["seconds"] = {
            "load": ready - started,
            "train": ended - ready,
            "total": ended - started,
        }
        return _evaluate(config, loaded, layer, history, facts, identity)


def _check_options(config: FinetuneConfig) -> None:
    check_not_both(config.out, "a run", config.resume, config.overwrite)
    if config.tensorboard:
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise UserError("--tensorboard: needs `pip install tensorboard`; or leave it out") from error


def _train_head(
    config: FinetuneConfig, loaded: LoadedStore, latest: LatestState, progress: Progress
) -> tuple[Layer, HeadHistory, dict[str, Any]]:
    """Train from the latest state to the last step: the head, its history, and facts of the run."""
    trainer = Trainer([config], loaded)
    if latest.state is None:
        trainer.evaluate()
    else:
        trainer.load_state(latest.state)
    latest.keep(trainer.state())
    (history,) = trainer.histories
    task = progress.add_task(f"fine-tuning ({config.method})", total=config.iterations, status="")
    try:
        with closing(trainer.run(config.eval_every)) as windows:
            for evaluated in windows:
                if evaluated:
                    _check_not_diverged(config, history, loaded)
                    progress.update(task, status=_status(history.metrics[-1]))
                progress.update(task, completed=trainer.iteration)
                latest.keep_when_due(trainer.state)
    finally:
        progress.remove_task(task)
    latest.keep(trainer.state())
    return trainer.layers()[0], history, trainer.facts(0)


def _status(row: dict[str, float]) -> str:
    scores = "".join(f"  {in_words(name)} {value:.1f}" for name, value in row.items() if is_score(name))
    return f"loss {row['loss']:.3f}{scores}"


def _check_not_diverged(config: FinetuneConfig, history: HeadHistory, loaded: LoadedStore) -> None:
    if history.diverged is None:
        return
    iteration, rows = history.diverged
    classes, class_names = np.unique(loaded.common.label[rows]), loaded.store.class_names
    names = ", ".join(shown(class_names[c]) for c in classes[:5]) + (", …" if len(classes) > 5 else "")
    raise UserError(
        f"{config.out or config.store}: diverged: the loss is NaN or infinite at iteration "
        f"{iteration}, in a batch of store rows {rows.min()} to {rows.max()} "
        f"({names}); lower --lr (it is {config.lr:g})"
    )


def _compute_head(config: FinetuneConfig, loaded: LoadedStore) -> tuple[Layer, HeadHistory, dict[str, Any]]:
    """Like `_train_head`, for a method that computes its head without training."""
    layer = posthoc_head(config, loaded)
    history = HeadHistory(config.rank_by)
    split = selection_split(loaded.held_out, config.select_on)
    history.add_row(0, accuracies(split, layer, loaded.threads), layer)
    return layer, history, class_facts(split_head_tail(loaded.common.class_counts, config.head_ratio))


def posthoc_head(config: FinetuneConfig, loaded: LoadedStore) -> Layer:
    """The head of a method that computes it without training, on the device."""
    weight, bias = posthoc_layer(config, loaded.store)
    return torch.tensor(weight, device=loaded.device), torch.tensor(bias, device=loaded.device)


def _evaluate(
    config: FinetuneConfig,
    loaded: LoadedStore,
    layer: Layer,
    history: HeadHistory,
    facts: dict[str, Any],
    identity: StoreIdentity,
) -> Run:
    """Evaluate the head on val and test: the only time that test is used, unless --select-on test."""
    phase1 = tuple(torch.tensor(part, device=loaded.device) for part in loaded.store.classifier)
    summary: dict[str, Any] = {}
    predicted = {}
    for name, split in loaded.held_out.items():
        before, after = (split.predict(*of, loaded.threads) for of in (phase1, layer))
        predicted[name] = (before, after)
        of_split = summarise(split.frame(after), config.shot_rule, parts_of(facts))
        of_split["phase1"] = summarise(split.frame(before), config.shot_rule, parts_of(facts))
        summary |= of_split if name == "test" else {name: of_split}
    summary |= {"select_on": config.select_on, "kept_iteration": history.kept_iteration(config.keep)}
    test, (before, after) = loaded.held_out["test"], predicted["test"]
    predictions = pd.DataFrame(
        {"sample_index": test.sample_index, "label": test.label, "phase1": before, "prediction": after}
    )
    names = image_names(loaded.store, "test")
    if names is not None:
        predictions["image"] = names
    provenance = {
        "store": deepcopy(loaded.store.provenance),
        "versions": versions(),
        "identity": identity.record(),
    }
    content = asdict(config) | {"facts": facts, "provenance": provenance}
    path = None if config.out is None else Path(config.out)
    head = Head(*(part.cpu() for part in layer))
    return Run(path, content, history.frame(), test.frame(after), predictions, summary, head)
