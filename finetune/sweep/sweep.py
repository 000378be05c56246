"""A sweep: many configurations and seeds from one store; heads that share a plan are trained together."""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import Progress, TaskID

from analysis.sweeps import rank_configurations
from extract.device import keep_freed_memory, make_deterministic, use_device
from extract.torchrun.device import device_of_rank
from extract.training.interrupted.unfinished import note_extracted_early
from finetune.config import FinetuneConfig
from finetune.cross_validation.allowed import check_allowed
from finetune.cross_validation.folds import CrossValidation
from finetune.cross_validation.options import CV
from finetune.heads.threads import single_threaded
from finetune.methods.idle import draws
from finetune.methods.options import effective_options
from finetune.methods.registry import find_sampling
from finetune.sampling.head_tail import split_head_tail
from finetune.sweep.batch import Batch, evaluate_every, train_batch
from finetune.sweep.config import SweepConfig
from finetune.sweep.folder import Sweep, SweepFolder, head_id
from finetune.sweep.marker import as_interrupted
from finetune.sweep.processes import processes
from finetune.training.inputs import check_batches
from finetune.training.selection import check_selection
from finetune.training.trainer import LoadedStore
from store.errors import Interrupted, UserError
from store.notes import note
from store.options import flag
from store.reader import FeatureStore
from store.storage.cache import open_cache
from store.storage.location import locate
from store.storage.lock import sole_writer


def sweep(
    config: SweepConfig,
    progress: Progress,
    show: Callable[[pd.DataFrame], None] | None,
    named: Collection[str] = (),
    store: FeatureStore | None = None,
) -> Sweep | None:
    """Train every configuration with every seed, and rank them by their accuracy on the validation split.

    Under `torchrun` every process trains its share and the first writes the results; machines must share the
    store and the folder.

    Args:
        config: the options.
        progress: shows the number of heads done.
        show: called with the ranking so far after each batch of heads; None for no display.
        named: names of the options that the user gave.
        store: the store that `config` names, if it is open already.

    Returns:
        The results; None in all processes but the first.

    Raises:
        UserError: the store, an option or the folder cannot be used.
        Interrupted: on Ctrl-C; the same options with `resume` continue the sweep.
    """
    keep_freed_memory()
    make_deterministic()
    _check_study(config, named)
    config = as_interrupted(config, named)
    base = config.base
    store = store or FeatureStore(locate(base.store), open_cache(base.cache, base.cache_gib))
    store.check_not_replaced()
    note_extracted_early(store)
    if base.select_on == CV:
        check_allowed(store)
    configs = _each_once(config, len(store.class_names))
    check_no_idle_axes(config, configs)
    folder = SweepFolder(config, configs, store)
    with processes() as group, single_threaded() as threads, ExitStack() as lock:
        loaded = LoadedStore.open(store, base.shot_rule, use_device(device_of_rank(base.device)), threads)
        folds = _folds(loaded, base, progress, tells=group.rank == 0)
        _check_each(configs, loaded, base, folder, folds)
        with _interruptible(folder):
            if group.rank == 0:
                lock.enter_context(sole_writer(folder.path, "sweep"))
                folder.prepare()
                _note_seedless(configs, config.seeds)
            group.meet()

        def show_ranking(rows: list[dict[str, Any]]) -> None:
            if show is not None:
                show(rank_configurations(folder.results(rows), base.select_on, base.rank_by))

        with _interruptible(folder):
            share = shared_out(configs, group.world)[group.rank :: group.world]
            _train_share(share, loaded, folds, folder, progress, show_ranking)
            group.meet()
            return folder.finish() if group.rank == 0 else None


def _folds(
    loaded: LoadedStore, base: FinetuneConfig, progress: Progress, tells: bool
) -> CrossValidation | None:
    """The folds that heads are selected on; None for a split, which must be there."""
    if base.select_on == CV:
        return CrossValidation(loaded, base, progress, tells=tells)
    check_selection(loaded.held_out.get(base.select_on), "sweep")
    return None


def _check_each(
    configs: list[FinetuneConfig],
    loaded: LoadedStore,
    base: FinetuneConfig,
    folder: SweepFolder,
    folds: CrossValidation | None,
) -> None:
    """Raise UserError if a head's batches cannot be drawn, or its maps held, before hours of training."""
    split_head_tail(loaded.common.class_counts, base.head_ratio)
    for one in configs:
        check_batches(one, loaded.store, loaded.common.class_counts)
        loaded.later(one)
        if folds is not None:
            folds.check_classes(one)
    done = {row["head"] for row in folder.rows()} if base.resume else set()
    loaded.check_room(one for one in configs if head_id(one) not in done)


def _each_once(config: SweepConfig, n_classes: int) -> list[FinetuneConfig]:
    """Every head, resolved, once; only the first seed for methods without random draws."""
    every = [one.resolved(n_classes) for one in config.configurations()]
    every = [one if draws(asdict(one)) else replace(one, seed=config.base.seed) for one in every]
    return list({head_id(one): one for one in reversed(every)}.values())[::-1]


def _note_seedless(configs: list[FinetuneConfig], n_seeds: int) -> None:
    for method in dict.fromkeys(one.method for one in configs if not draws(asdict(one))):
        if n_seeds > 1:
            note(f"{method} does not depend on the seed, so each configuration has one head, not {n_seeds}")


@contextmanager
def _interruptible(folder: SweepFolder) -> Iterator[None]:
    """Raise Interrupted on Ctrl-C, if there is something to resume."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise (Interrupted() if folder.is_started else error) from error


def _train_share(
    batches: list[Batch],
    loaded: LoadedStore,
    folds: CrossValidation | None,
    folder: SweepFolder,
    progress: Progress,
    show_ranking: Callable[[list[dict[str, Any]]], None],
) -> None:
    """Train the heads of these batches that are not done yet."""
    rows = folder.rows()
    task = progress.add_task("sweep", total=folder.n_heads, completed=len(rows), status="")
    done = {row["head"] for row in rows}
    try:
        for batch in batches:
            left = [one for one in batch if head_id(one) not in done]
            if left:
                rows += train_batch(left, loaded, folds, folder, partial(show_status, progress, task))
                progress.update(task, completed=len(rows))
                show_ranking(rows)
    finally:
        progress.remove_task(task)


def show_status(progress: Progress, task: TaskID, text: str) -> None:
    """Show what is being done beside a bar."""
    progress.update(task, status=text)


def shared_out(configs: list[FinetuneConfig], world: int) -> list[Batch]:
    """Configurations in batches that share a plan, if possible at least as many as there are processes.

    The batches do not depend on what is done already, so they are the same in all processes.
    """
    alike: dict[tuple, Batch] = {}
    for config in configs:
        alike.setdefault(plan_key(config), []).append(config)
    parts = -(-world // len(alike))
    batches = []
    for batch in alike.values():
        cuts = np.linspace(0, len(batch), min(parts, len(batch)) + 1).astype(int)
        batches += [batch[start:stop] for start, stop in pairwise(cuts)]
    return batches


def plan_key(config: FinetuneConfig) -> tuple:
    """Equal for resolved configurations whose heads share batches and are evaluated at the same steps."""
    sampling = find_sampling(config)
    if sampling is None:
        return (head_id(config),)
    options = [getattr(config, name) for name in sampling.options]
    return (sampling, config.seed, config.iterations, evaluate_every(config), config.keep, *options)


def _check_study(config: SweepConfig, named: Collection[str]) -> None:
    if config.study is not None and "method" in named:
        raise UserError(
            f"--method {config.base.method}: --study {config.study} says which methods it compares; leave it "
            "out, or vary the same options with --grid"
        )


def check_no_idle_axes(config: SweepConfig, configs: list[FinetuneConfig]) -> None:
    """Raise UserError for an option that is varied and changes no head."""
    effective = {name for one in configs for name in effective_options(asdict(one))}
    effective |= {"tail_samples"} if "batch_size" in effective else set()
    effective -= {"sampling"} if all(one.sampling is None for one in configs) else set()
    for name in config.varied():
        if name not in effective:
            methods = ", ".join(dict.fromkeys(f"{one.method} with loss {one.loss}" for one in configs))
            raise UserError(f"sweep: {flag(name)} is varied and changes nothing for {methods}; leave it out")
