"""Phase II: fine-tune only the FC layer, on cached features (paper, secs. 4.2 and 4.3)."""

import time
from collections.abc import Collection
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from rich.progress import Progress

from analysis.accuracy import summarise
from extract.device import keep_freed_memory, make_deterministic, resolve_device, use_device
from extract.heads.kinds import fully_connected
from extract.training.interrupted.unfinished import note_extracted_early
from finetune.config import FinetuneConfig
from finetune.cross_validation.allowed import check_allowed
from finetune.cross_validation.folds import CrossValidation
from finetune.cross_validation.options import CV
from finetune.cross_validation.scores import n_scored
from finetune.heads.threads import single_threaded
from finetune.methods.options import without_idle_folds
from finetune.one_head import MadeHead, make_head
from finetune.run import Run, check_provenance, find_phase1, write_run
from finetune.run_folder import foreign_to_run
from finetune.sampling.head_tail import parts_of
from finetune.store_identity import StoreIdentity, identify
from finetune.training.inputs import split_classes
from finetune.training.resume import LatestState, UnfinishedRun
from finetune.training.selection import check_selection, selection_split
from finetune.training.trainer import LoadedStore
from store.arrays.image_names import image_names
from store.errors import UserError
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
    config = without_idle_folds(config.resolved(len(store.class_names)))
    note_extracted_early(store)
    _check_options(config)
    if config.select_on == CV:
        check_allowed(store)
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
        folds = None
        if config.select_on == CV:
            split_classes(config, loaded.common.class_counts)
            folds = CrossValidation(loaded, config, progress)
            folds.check_classes(config)
        elif config.keep == "best":
            check_selection(selection_split(loaded.held_out, config.select_on), "--keep best")
        ready = time.perf_counter()
        made = make_head(config, loaded, folds, latest, progress)
        ended = time.perf_counter()
        store.check_not_replaced()  # its maps were read by path until now
        made.facts["seconds"] = {
            "load": ready - started,
            "train": ended - ready,
            "total": ended - started,
        }
        return evaluated(config, loaded, made, folds, identity)


def _check_options(config: FinetuneConfig) -> None:
    check_not_both(config.out, "a run", config.resume, config.overwrite)
    if config.tensorboard:
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise UserError("--tensorboard: needs `pip install tensorboard`; or leave it out") from error


def evaluated(
    config: FinetuneConfig,
    loaded: LoadedStore,
    made: MadeHead,
    folds: CrossValidation | None,
    identity: StoreIdentity,
) -> Run:
    """The run of a head, evaluated on val and test: the only use of test, unless --select-on test."""
    layer, history, facts = made.layer, made.history, made.facts
    phase1 = fully_connected(loaded.store.classifier, loaded.device)
    summary: dict[str, Any] = {}
    predicted = {}
    for name, split in loaded.held_out.items():
        before, after = (split.predict(of, loaded.threads) for of in (phase1, layer))
        predicted[name] = (before, after)
        of_split = _summary(split.frame(after), split.frame(before), config, facts)
        summary |= of_split if name == "test" else {name: of_split}
    kept = history.kept_iteration(config.keep)
    if folds is not None:
        before = made.scores.frame_of(folds.phase1_right)
        summary[CV] = _summary(made.scores.frame(0, kept), before, config, facts)
        summary[CV]["n_scored"] = n_scored(made.scores.frame(0, kept), parts_of(facts))
    summary |= {"select_on": config.select_on, "kept_iteration": kept}
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
    head = type(layer)(*(part.cpu() for part in layer))
    return Run(path, content, history.frame(), test.frame(after), predictions, summary, head)


def _summary(
    after: pd.DataFrame, before: pd.DataFrame, config: FinetuneConfig, facts: dict[str, Any]
) -> dict[str, Any]:
    """Accuracies of a head and, as "phase1", of the FC layer that it started from."""
    of_head, of_phase1 = (summarise(one, config.shot_rule, parts_of(facts)) for one in (after, before))
    return of_head | {"phase1": of_phase1}
