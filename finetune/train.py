"""Phase II: fine-tune the FC layer alone on cached features (paper, secs. 4.2 and 4.3)."""

import time
from collections.abc import Callable, Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.progress import Progress

from analysis.accuracy import in_words, is_score, summarise
from extract.device import keep_freed_memory, make_deterministic, resolve_device, use_device
from extract.training.unfinished import note_extracted_unfinished
from finetune.config import FinetuneConfig
from finetune.heads.threads import single_threaded
from finetune.methods.registry import METHODS
from finetune.run import Head, Run, check_provenance, find_phase1, write_run
from finetune.run_folder import foreign_to_run
from finetune.sampling.head_tail import parts_of, split_head_tail
from finetune.store_identity import StoreIdentity, identify
from finetune.training.history import HeadHistory
from finetune.training.inputs import computed_layer
from finetune.training.resume import Latest, UnfinishedRun
from finetune.training.selection import Layer, accuracies, require_selection, selection_split
from finetune.training.trainer import LoadedStore, Trainer, class_facts
from store.arrays.image_names import image_names
from store.errors import UserError
from store.names import shown
from store.provenance import versions
from store.reader import FeatureStore
from store.storage.atomic import refuse_both, refuse_existing
from store.storage.cache import open_cache
from store.storage.location import locate
from store.storage.lock import sole_writer

NOTE_EVERY = 1.0  # seconds between states that Ctrl-C saves
SAVE_EVERY = 30.0  # seconds between states that a killed run can be gone on with from


def finetune(
    config: FinetuneConfig,
    progress: Progress,
    named: Collection[str] = (),
    store: FeatureStore | None = None,
) -> Run:
    """Fine-tune one head from a store and write its run folder.

    Two runs with one seed give the same bytes in head.pt, wherever the maps live and whether or not it was
    interrupted.

    Args:
        config: the options.
        progress: a bar of iterations.
        named: options the user gave; they win over an older version's.
        store: the store that `config` names, where it is open already.

    Raises:
        UserError: the store, the options or the folder cannot be used, or the loss is no number any more.
        Interrupted: by the user; the same options and `resume` go on.
    """
    started = time.perf_counter()
    store = store or _opened(config)
    config = _resolved(config, store)
    with sole_writer(Path(config.out), "run"):
        unfinished = UnfinishedRun(config, store, named)
        return _finetune(unfinished, store, started, progress)


def _finetune(unfinished: UnfinishedRun, store: FeatureStore, started: float, progress: Progress) -> Run:
    """As `finetune`, by the sole writer of the folder; `started` is the moment by the performance counter."""
    config = unfinished.config
    unfinished.refuse_existing(config.resume, config.overwrite)
    may_replace = config.overwrite or (config.resume and unfinished.path.exists())  # it was begun as such
    refuse_existing(Path(config.out), "run", foreign_to_run, may_replace)
    phase1 = find_phase1(store, config.ckpt)
    with unfinished.kept_when_interrupted() as latest:
        latest.state = unfinished.load()
        run = _made(config, store, unfinished.identity, started, progress, latest, unfinished.save)
        write_run(run, phase1, config.tensorboard)
        unfinished.remove()
    return run


def finetune_in_memory(config: FinetuneConfig, progress: Progress, store: FeatureStore | None = None) -> Run:
    """As `finetune`, and writes nothing: the head is in the run, and Phase I's checkpoint is not asked for.

    Args:
        config: the options; `out` is None.
        progress: a bar of iterations.
        store: the store that `config` names, where it is open already.

    Raises:
        UserError: the store or the options cannot be used, or the loss is no number any more.
    """
    started = time.perf_counter()
    store = store or _opened(config)
    config = _resolved(config, store)
    check_provenance(store)
    return _made(config, store, identify(store), started, progress, Latest(), lambda state: None)


def _opened(config: FinetuneConfig) -> FeatureStore:
    return FeatureStore(locate(config.store), open_cache(config.cache, config.cache_gib))


def _resolved(config: FinetuneConfig, store: FeatureStore) -> FinetuneConfig:
    """The options as the run takes them, with what a run asks of the process set up."""
    keep_freed_memory()
    make_deterministic()
    config = config.resolved(len(store.class_names))
    note_extracted_unfinished(store)
    _refuse_options(config)
    return config


def _made(
    config: FinetuneConfig,
    store: FeatureStore,
    identity: StoreIdentity,
    started: float,
    progress: Progress,
    latest: Latest,
    save: Callable[[dict[str, Any]], None],
) -> Run:
    """The run, from its latest state on; `save` keeps a state now and then."""
    with single_threaded() as threads:
        bench = LoadedStore.open(store, config.shot_rule, use_device(resolve_device(config.device)), threads)
        if config.keep == "best":
            require_selection(selection_split(bench.held_out, config.select_on), "--keep best")
        loaded = time.perf_counter()
        if METHODS[config.method].compute is not None:
            layer, course, facts = _compute(config, bench)
        else:
            layer, course, facts = _train(config, bench, latest, save, progress)
        ended = time.perf_counter()
        facts["seconds"] = {"load": loaded - started, "train": ended - loaded, "total": ended - started}
        return _describe(config, bench, layer, course, facts, identity)


def _refuse_options(config: FinetuneConfig) -> None:
    refuse_both(config.out, "a run", config.resume, config.overwrite)
    if config.tensorboard:
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise UserError("--tensorboard: needs `pip install tensorboard`; or leave it out") from error


def _train(
    config: FinetuneConfig,
    bench: LoadedStore,
    latest: Latest,
    save: Callable[[dict[str, Any]], None],
    progress: Progress,
) -> tuple[Layer, HeadHistory, dict[str, Any]]:
    """Take every step that the latest state has not: the head, its course, and facts of the run."""
    group = Trainer([config], bench)
    if latest.state is None:
        group.begin()
    else:
        group.load(latest.state)
    latest.state, noted = group.state(), time.perf_counter()
    saved = noted
    task = progress.add_task(f"fine-tuning ({config.method})", total=config.iterations, status="")

    def tick(iteration: int) -> None:
        nonlocal noted, saved
        progress.update(task, completed=iteration)
        now = time.perf_counter()
        if now - noted > NOTE_EVERY:
            latest.state, noted = group.state(), now
        if now - saved > SAVE_EVERY:
            save(latest.state)
            saved = now

    def look() -> None:
        _refuse_divergence(config, group.courses[0], bench)
        progress.update(task, status=_status(group.courses[0].metrics[-1]))

    try:
        group.run(config.eval_every, tick, look)
    finally:
        progress.remove_task(task)
    latest.state = group.state()
    return group.layers()[0], group.courses[0], group.facts(0)


def _status(row: dict[str, float]) -> str:
    told = "".join(f"  {in_words(name)} {value:.1f}" for name, value in row.items() if is_score(name))
    return f"loss {row['loss']:.3f}{told}"


def _refuse_divergence(config: FinetuneConfig, course: HeadHistory, bench: LoadedStore) -> None:
    if course.diverged is None:
        return
    rows = course.diverged.rows
    classes, class_names = np.unique(bench.common.label[rows]), bench.store.class_names
    names = ", ".join(shown(class_names[c]) for c in classes[:5]) + (", …" if len(classes) > 5 else "")
    raise UserError(
        f"{config.out or config.store}: diverged: the loss is no number at iteration "
        f"{course.diverged.iteration}, in a batch of the store's rows {rows.min()} to {rows.max()} "
        f"({names}); lower --lr (it is {config.lr:g})"
    )


def _compute(config: FinetuneConfig, bench: LoadedStore) -> tuple[Layer, HeadHistory, dict[str, Any]]:
    """The head of a method that trains nothing, as `_train` gives it."""
    layer = computed(config, bench)
    course = HeadHistory(rank_by=config.rank_by)
    split = selection_split(bench.held_out, config.select_on)
    course.begin(accuracies(split, layer, bench.threads), layer)
    return layer, course, class_facts(split_head_tail(bench.common.class_counts, config.head_ratio))


def computed(config: FinetuneConfig, bench: LoadedStore) -> Layer:
    """The head of a method that trains nothing, on the device."""
    weight, bias = computed_layer(config, bench.store)
    return torch.from_numpy(weight).to(bench.device), torch.from_numpy(bias).to(bench.device)


def _describe(
    config: FinetuneConfig,
    bench: LoadedStore,
    layer: Layer,
    course: HeadHistory,
    facts: dict[str, Any],
    identity: StoreIdentity,
) -> Run:
    """The run, with test accuracies: the first and only time that the test set is looked at, unless asked."""
    phase1 = tuple(torch.from_numpy(part).to(bench.device) for part in bench.store.classifier)
    summary: dict[str, Any] = {}
    predicted = {}
    for name, split in bench.held_out.items():
        before, after = (split.predict(*of, bench.threads) for of in (phase1, layer))
        predicted[name] = (before, after)
        of_split = summarise(split.frame(after), config.shot_rule, parts_of(facts))
        of_split["phase1"] = summarise(split.frame(before), config.shot_rule, parts_of(facts))
        summary |= of_split if name == "test" else {name: of_split}
    kept = course.best.iteration if config.keep == "best" else course.iteration
    summary |= {"select_on": config.select_on, "kept_iteration": kept}
    test, (before, after) = bench.held_out["test"], predicted["test"]
    predictions = pd.DataFrame(
        {"sample_index": test.sample_index, "label": test.label, "phase1": before, "prediction": after}
    )
    names = image_names(bench.store, "test")
    if names is not None:
        predictions["image"] = names
    provenance = {"store": bench.store.provenance, "versions": versions(), "identity": identity.record()}
    content = asdict(config) | {"facts": facts, "provenance": provenance}
    path = None if config.out is None else Path(config.out)
    head = Head(*(part.cpu() for part in layer))
    return Run(path, content, course.frame(), test.frame(after), predictions, summary, head)
