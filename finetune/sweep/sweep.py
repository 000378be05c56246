"""A sweep: many configurations and seeds from one store; heads that share a plan are trained together."""

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.progress import Progress

from analysis.accuracy import group_accuracies
from analysis.sweeps import rank_configurations
from extract.device import keep_freed_memory, make_deterministic, resolve_device, use_device
from extract.training.unfinished import note_extracted_early
from finetune.config import FinetuneConfig
from finetune.heads.threads import single_threaded
from finetune.methods.idle import draws
from finetune.methods.options import effective_options
from finetune.methods.registry import METHODS
from finetune.sampling.head_tail import split_head_tail
from finetune.sweep.config import SweepConfig
from finetune.sweep.folder import Sweep, SweepFolder, head_id
from finetune.sweep.marker import as_interrupted
from finetune.sweep.processes import processes
from finetune.train import posthoc_head
from finetune.training.inputs import split_classes
from finetune.training.selection import Layer, check_selection
from finetune.training.trainer import LoadedStore, Trainer
from store.errors import Interrupted, UserError
from store.notes import note
from store.options import flag
from store.reader import FeatureStore
from store.storage.cache import open_cache
from store.storage.location import locate
from store.storage.lock import sole_writer

Batch = list[FinetuneConfig]  # heads that share a plan, or a single post-hoc head


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
    config = as_interrupted(config, named)
    base = config.base
    store = store or FeatureStore(locate(base.store), open_cache(base.cache, base.cache_gib))
    store.check_not_replaced()
    note_extracted_early(store)
    configs = _each_once(config, len(store.class_names))
    check_no_idle_axes(config, configs)
    folder = SweepFolder(config, configs, store)
    with processes() as group, single_threaded() as threads, ExitStack() as lock:
        loaded = LoadedStore.open(store, base.shot_rule, use_device(_device(base.device)), threads)
        check_selection(loaded.held_out.get(base.select_on), "sweep")
        split_head_tail(loaded.common.class_counts, base.head_ratio)  # check both before hours of training
        for one in configs:
            split_classes(one, loaded.common.class_counts)
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
            _train_share(share, loaded, folder, progress, show_ranking)
            group.meet()
            return folder.finish() if group.rank == 0 else None


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
                rows += _train_batch(left, loaded, folder, lambda text: progress.update(task, status=text))
                progress.update(task, completed=len(rows))
                show_ranking(rows)
    finally:
        progress.remove_task(task)


def _device(name: str) -> torch.device:
    """The device of this process: under `torchrun`, one GPU per process unless the user names a GPU."""
    device = resolve_device(name)
    if name in ("auto", "cuda") and device.type == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    return device


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
    sampling = METHODS[config.method].sampling
    if sampling is None:
        return (head_id(config),)
    options = [getattr(config, name) for name in sampling.options]
    return (sampling, config.seed, config.iterations, evaluate_every(config), config.keep, *options)


def check_no_idle_axes(config: SweepConfig, configs: list[FinetuneConfig]) -> None:
    """Raise UserError for an option that is varied and changes no head."""
    effective = {name for one in configs for name in effective_options(asdict(one))}
    effective |= {"tail_samples"} if "batch_size" in effective else set()
    for name in config.varied():
        if name not in effective:
            methods = ", ".join(dict.fromkeys(f"{one.method} with loss {one.loss}" for one in configs))
            raise UserError(f"sweep: {flag(name)} is varied and changes nothing for {methods}; leave it out")


def evaluate_every(config: FinetuneConfig) -> int:
    """Iterations between evaluations: `eval_every` for early stopping, else once at the end."""
    return config.eval_every if config.keep == "best" else config.iterations


def _train_batch(
    batch: Batch, loaded: LoadedStore, folder: SweepFolder, status: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Train or compute the heads of a batch, write their rows, and return them."""
    started, first = time.perf_counter(), batch[0]
    if METHODS[first.method].compute is not None:
        layers, courses = _compute_head(first, loaded)
    else:
        layers, courses = _train_heads(batch, loaded, status)
    loaded.store.check_not_replaced()  # its maps were read by path until now
    seconds = (time.perf_counter() - started) / len(batch)
    rows = []
    for config, layer, course in zip(batch, layers, courses, strict=True):
        ratio = config.head_ratio if folder.head_ratio is None else folder.head_ratio
        found = {} if course["diverged_at"] is not None else _accuracies(layer, loaded, ratio)
        rows.append({"head": head_id(config)} | course | found | {"seconds": seconds})
    folder.keep(rows, layers)
    return rows


def _compute_head(
    config: FinetuneConfig, loaded: LoadedStore
) -> tuple[list[Layer | None], list[dict[str, Any]]]:
    """A post-hoc head; None if its weights are NaN or infinite."""
    try:
        return [posthoc_head(config, loaded)], [{"kept_iteration": 0, "diverged_at": None}]
    except UserError:
        return [None], [{"kept_iteration": 0, "diverged_at": 0}]


def _train_heads(
    batch: Batch, loaded: LoadedStore, status: Callable[[str], None]
) -> tuple[list[Layer], list[dict[str, Any]]]:
    first = batch[0]
    trainer = Trainer(batch, loaded, evaluates=first.keep == "best")
    trainer.evaluate()
    heads = f"{len(batch)} heads, {first.method}" if len(batch) > 1 else first.method
    with closing(trainer.run(evaluate_every(first))) as windows:
        for _ in windows:
            status(f"{heads}: {trainer.iteration:,} of {first.iterations:,} iterations")
    courses = [
        {
            "kept_iteration": history.kept_iteration(config.keep),
            "diverged_at": history.diverged.iteration if history.diverged else None,
        }
        for config, history in zip(batch, trainer.histories, strict=True)
    ]
    return trainer.layers(), courses


def _accuracies(layer: Layer, loaded: LoadedStore, head_ratio: float) -> dict[str, float]:
    """val_overall, …, test_tail: the only evaluation on test, after training."""
    found = {}
    parts = split_head_tail(loaded.common.class_counts, head_ratio).parts()
    for name, split in loaded.held_out.items():
        of_split = group_accuracies(split.frame(split.predict(*layer, loaded.threads)), parts)
        found |= {f"{name}_{group}": value for group, value in of_split.items()}
    return found
