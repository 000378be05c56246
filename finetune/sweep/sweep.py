"""A sweep: any number of configurations and seeds from one store, heads that share a plan side by side."""

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
from extract.training.unfinished import note_extracted_unfinished
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
from finetune.train import computed
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

Batch = list[FinetuneConfig]  # heads that share a plan, or one that is computed


def sweep(
    config: SweepConfig,
    progress: Progress,
    show: Callable[[pd.DataFrame], None] | None,
    named: Collection[str] = (),
    store: FeatureStore | None = None,
) -> Sweep | None:
    """Train every configuration with every seed, and rank them by their accuracy on the validation split.

    Under `torchrun` every process takes its share, and the first writes the results; machines share the
    store and the folder.

    Args:
        config: the options.
        progress: a bar of heads done.
        show: given the ranking so far, after every group of heads; None where nobody looks.
        named: options the user gave; they win over an older version's.
        store: the store that `config` names, where it is open already.

    Returns:
        The results; None in all processes but the first.

    Raises:
        UserError: the store, the options or the folder cannot be used.
        Interrupted: by the user; the same options and `resume` go on.
    """
    keep_freed_memory()
    make_deterministic()
    config = as_interrupted(config, named)
    base = config.base
    store = store or FeatureStore(locate(base.store), open_cache(base.cache, base.cache_gib))
    store.check_not_replaced()
    note_extracted_unfinished(store)
    configs = _each_once(config, len(store.class_names))
    check_no_idle_axes(config, configs)
    folder = SweepFolder(config, configs, store)
    with processes() as group, single_threaded() as threads, ExitStack() as lock:
        loaded = LoadedStore.open(store, base.shot_rule, use_device(_device(base.device)), threads)
        check_selection(loaded.held_out.get(base.select_on), "sweep")
        split_head_tail(loaded.common.class_counts, base.head_ratio)  # of which all heads are told
        for one in configs:
            split_classes(one, loaded.common.class_counts)  # before the first head, not after hours
        with _interruptible(folder):
            if group.rank == 0:
                lock.enter_context(sole_writer(folder.path, "sweep"))
                folder.begin()
                _note_undrawn(configs, config.seeds)
            group.meet()

        def tell(rows: list[dict[str, Any]]) -> None:
            if show is not None:
                show(rank_configurations(folder.results(rows), base.select_on, base.rank_by))

        with _interruptible(folder):
            share = shared_out(configs, group.world)[group.rank :: group.world]
            _take_share(share, loaded, folder, progress, tell)
            group.meet()
            return folder.finish() if group.rank == 0 else None


def _each_once(config: SweepConfig, n_classes: int) -> list[FinetuneConfig]:
    """Every head, resolved, once; with the first seed alone where nothing is drawn."""
    every = [one.resolved(n_classes) for one in config.configurations()]
    every = [one if draws(asdict(one)) else replace(one, seed=config.base.seed) for one in every]
    return list({head_id(one): one for one in reversed(every)}.values())[::-1]


def _note_undrawn(configs: list[FinetuneConfig], n_seeds: int) -> None:
    for method in dict.fromkeys(one.method for one in configs if not draws(asdict(one))):
        if n_seeds > 1:
            note(f"{method} draws nothing, so each of its configurations has one head, not {n_seeds}")


@contextmanager
def _interruptible(folder: SweepFolder) -> Iterator[None]:
    """Raise Interrupted on Ctrl-C, once there is something to go on with."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise (Interrupted() if folder.is_begun else error) from error


def _take_share(
    batches: list[Batch],
    loaded: LoadedStore,
    folder: SweepFolder,
    progress: Progress,
    tell: Callable[[list[dict[str, Any]]], None],
) -> None:
    """Make the heads of some batches that are not done yet."""
    rows = folder.rows()
    task = progress.add_task("sweep", total=folder.n_heads, completed=len(rows), status="")
    done = {row["head"] for row in rows}
    try:
        for batch in batches:
            left = [one for one in batch if head_id(one) not in done]
            if left:
                rows += _take(left, loaded, folder, lambda text: progress.update(task, status=text))
                progress.update(task, completed=len(rows))
                tell(rows)
    finally:
        progress.remove_task(task)


def _device(name: str) -> torch.device:
    """The device of this process: under `torchrun` on one machine a GPU each, unless one is named."""
    device = resolve_device(name)
    if name in ("auto", "cuda") and device.type == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    return device


def shared_out(configs: list[FinetuneConfig], world: int) -> list[Batch]:
    """Configurations in batches that share a plan, at least as many as there are processes where they can be.

    It does not depend on what is done already, so that all processes see the same batches.
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
    """Equal for resolved configurations whose heads see the same batches, looked at after the same steps."""
    sampling = METHODS[config.method].sampling
    if sampling is None:
        return (head_id(config),)
    options = [getattr(config, name) for name in sampling.options]
    return (sampling, config.seed, config.iterations, look_every(config), config.keep, *options)


def check_no_idle_axes(config: SweepConfig, configs: list[FinetuneConfig]) -> None:
    """Raise UserError for an option that is varied and changes no head."""
    effective = {name for one in configs for name in effective_options(asdict(one))}
    effective |= {"tail_samples"} if "batch_size" in effective else set()
    for name in config.varied():
        if name not in effective:
            methods = ", ".join(dict.fromkeys(f"{one.method} with loss {one.loss}" for one in configs))
            raise UserError(f"sweep: {flag(name)} is varied and changes nothing for {methods}; leave it out")


def look_every(config: FinetuneConfig) -> int:
    """Iterations between stops: those under way are for early stopping only."""
    return config.eval_every if config.keep == "best" else config.iterations


def _take(
    batch: Batch, loaded: LoadedStore, folder: SweepFolder, status: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Make the heads of a batch; their rows, which are also written."""
    started, first = time.perf_counter(), batch[0]
    if METHODS[first.method].compute is not None:
        layers, ways = _compute(first, loaded)
    else:
        layers, ways = _train(batch, loaded, status)
    loaded.store.check_not_replaced()  # its maps were read by path all the while
    seconds = (time.perf_counter() - started) / len(batch)
    rows = []
    for config, layer, way in zip(batch, layers, ways, strict=True):
        ratio = config.head_ratio if folder.head_ratio is None else folder.head_ratio
        found = {} if way["diverged_at"] is not None else _accuracies(layer, loaded, ratio)
        rows.append({"head": head_id(config)} | way | found | {"seconds": seconds})
    folder.keep(rows, layers)
    return rows


def _compute(config: FinetuneConfig, loaded: LoadedStore) -> tuple[list[Layer | None], list[dict[str, Any]]]:
    """A head that is not trained; None where its weights are no numbers."""
    try:
        return [computed(config, loaded)], [{"kept_iteration": 0, "diverged_at": None}]
    except UserError:
        return [None], [{"kept_iteration": 0, "diverged_at": 0}]


def _train(
    batch: Batch, loaded: LoadedStore, status: Callable[[str], None]
) -> tuple[list[Layer], list[dict[str, Any]]]:
    first = batch[0]
    trainer = Trainer(
        batch, loaded, looks=first.keep == "best"
    )  # accuracies under way are for early stopping
    trainer.begin()
    heads = f"{len(batch)} heads, {first.method}" if len(batch) > 1 else first.method
    with closing(trainer.run(look_every(first))) as windows:
        for _ in windows:
            status(f"{heads}: {trainer.iteration:,} of {first.iterations:,} iterations")
    ways = [
        {
            "kept_iteration": history.kept_iteration(config.keep),
            "diverged_at": history.diverged.iteration if history.diverged else None,
        }
        for config, history in zip(batch, trainer.histories, strict=True)
    ]
    return trainer.layers(), ways


def _accuracies(layer: Layer, loaded: LoadedStore, head_ratio: float) -> dict[str, float]:
    """val_overall, …, test_tail: the test split is looked at once, for a head that is done."""
    found = {}
    parts = split_head_tail(loaded.common.class_counts, head_ratio).parts()
    for name, split in loaded.held_out.items():
        of_split = group_accuracies(split.frame(split.predict(*layer, loaded.threads)), parts)
        found |= {f"{name}_{group}": value for group, value in of_split.items()}
    return found
