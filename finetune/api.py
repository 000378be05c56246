"""The functions behind `import tailcache`: one per command, errors as exceptions, results as frames."""

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.tables import compare as compare_rows
from analysis.tables import without_nan
from extract.checkpoints.checkpoint import load_checkpoint
from extract.checkpoints.restore import restore_network
from extract.config import ExtractConfig, TrainConfig
from extract.data_notes import note_skipped
from extract.dump import extract as run_extract
from extract.networks.parts import Network
from extract.options import check_shot_rule
from extract.train import train as run_train
from extract.training.interrupted.resume import resumed_config
from finetune.calls import Place, computing, path_text
from finetune.commands import early
from finetune.commands.failures import as_user_errors
from finetune.commands.options import build
from finetune.compare.analyze import measure_runs
from finetune.compare.finished_sweep import is_sweep
from finetune.config import FinetuneConfig
from finetune.keywords import checked_options, varied_options
from finetune.methods.idle import idle_in_sweep, idle_in_words
from finetune.run import Run, RunError
from finetune.run import read_run as run_at
from finetune.sweep.config import SweepConfig
from finetune.sweep.folder import Sweep
from finetune.sweep.sweep import sweep as run_sweep
from finetune.train import finetune as run_finetune
from finetune.train import finetune_in_memory
from finetune.training.run_notes import notes_on_run
from store.errors import UserError
from store.notes import note
from store.reader import FeatureStore
from store.storage.cache import open_cache
from store.storage.location import locate

FOLDER_OPTIONS = ("resume", "overwrite", "tensorboard")  # of `finetune`, meaningless without a folder


@as_user_errors()
def open_store(path: Place, cache: Place | None = None) -> FeatureStore:
    """Open a finished feature store, read-only.

    Args:
        path: a path that ends in .zarr or .h5, or s3://bucket/name.zarr.
        cache: local folder for caching reads of an s3:// store, at most 20 GiB.

    Raises:
        UserError: there is no store, or it is incomplete, damaged or not ours.
    """
    folder = None if cache is None else path_text(cache)
    return FeatureStore(locate(path_text(path)), open_cache(folder, FinetuneConfig.cache_gib))


@as_user_errors()
def train(root: Place | None = None, *, out: Place, progress: bool = False, **options: Any) -> Path:
    """Phase I: train a network on all classes.

    Args:
        root: folder of the images: train/<class>/ and test/<class>/; None for an embedded data set.
        out: folder for the checkpoint and metrics.
        progress: show a bar on stderr.
        options: options of `tailcache train`, such as epochs=20.

    Returns:
        Path of the checkpoint, for `extract`.

    Raises:
        UserError: the images, an option or the folder cannot be used.
        Interrupted: on Ctrl-C; `resume=True` continues.
    """
    named = options | {"out": out} | ({} if root is None else {"root": root})
    named = checked_options(TrainConfig, "train", named)
    config = build(TrainConfig, named)
    early.check_training(config)
    if config.resume:
        config = resumed_config(config.out, named)
    with computing(progress) as bar:
        checkpoint = run_train(config, bar)
    note_skipped(checkpoint.dataset["skipped"], config.out)
    return Path(config.out) / "checkpoint.pt"


@as_user_errors()
def extract(
    ckpt: Place | None = None,
    store: Place = ExtractConfig.store,
    *,
    progress: bool = False,
    **options: Any,
) -> FeatureStore | None:
    """Run every image through the network once and cache what Phase II needs.

    Args:
        ckpt: checkpoint that `train` wrote, or another program's weights, which need `arch` and the images of
            their classes (`root`, `train` or `dataset`); None with `classifier="fit"` and `weights`.
        store: store to write: a path that ends in .zarr or .h5, or s3://bucket/name.zarr.
        progress: show a bar on stderr.
        options: options of `tailcache extract`, such as views=8.

    Returns:
        The store, open for reading; None if only a part was written (`part="1/3"`, or under torchrun), and
        the store is not complete.

    Raises:
        UserError: the checkpoint, an image, an option or the target cannot be used.
        Interrupted: on Ctrl-C; `resume=True` continues.
    """
    named = options | {"ckpt": ckpt, "store": store}
    config = build(ExtractConfig, checked_options(ExtractConfig, "extract", named))
    early.check_extraction(config)
    with computing(progress) as bar:
        shapes = run_extract(config, bar)
    return FeatureStore(locate(config.store)) if shapes else None


@as_user_errors()
def finetune(
    store: FeatureStore | Place, *, out: Place | None = None, progress: bool = False, **options: Any
) -> Run:
    """Phase II: fine-tune the FC layer on cached features.

    Args:
        store: a store from `open_store`, or its path.
        out: folder for the run; None writes nothing, and then Phase I's checkpoint is not needed.
        progress: show a bar on stderr.
        options: options of `tailcache finetune`, such as method="fsa".

    Returns:
        The run: per_class, metrics and predictions as frames, `summary`, `config`, and `head`.

    Raises:
        UserError: the store, an option or the folder cannot be used, or the loss became NaN or infinite.
        Interrupted: on Ctrl-C, if there is a folder; `resume=True` continues.
    """
    opened, where = _opened(store, options)
    named = options | where | {"out": out}
    config = FinetuneConfig(**checked_options(FinetuneConfig, "finetune", named))
    if out is None:
        for name in FOLDER_OPTIONS:
            if getattr(config, name):
                raise UserError(f"finetune: {name} needs a folder for the run; give it with out=")
    if opened is None:
        early.check_finetuning(config)
    with computing(progress) as bar:
        if out is None:
            run = finetune_in_memory(config, bar, opened)
        else:
            run = run_finetune(config, bar, options, opened)
    for message in notes_on_run(run.config, options):
        note(message)
    return run


@as_user_errors()
def sweep(store: FeatureStore | Place, *, out: Place, progress: bool = False, **options: Any) -> Sweep | None:
    """Many configurations and seeds of Phase II at once, ranked on the validation split.

    Args:
        store: a store from `open_store`, or its path.
        out: folder for the sweep.
        progress: show a bar on stderr.
        options: options of `tailcache sweep`; grid={"tau": [1, 2]}, range={"lr": (1e-4, 1e-2, "log")}.

    Returns:
        The sweep: `ranking` and `results` as frames; under torchrun, None in all processes but the first.

    Raises:
        UserError: the store, an option or the folder cannot be used.
        Interrupted: on Ctrl-C; `resume=True` continues.
    """
    if out is None:
        raise UserError("sweep: keeps its heads in a folder; give it with out=")
    opened, where = _opened(store, options)
    named = options | varied_options(options) | where | {"out": out}
    config = build(SweepConfig, checked_options(SweepConfig, "sweep", named))
    if opened is None:
        early.check_sweep(config)
    with computing(progress) as bar:
        found = run_sweep(config, bar, None, options, opened)
    if found is not None:
        heads = [vars(config.base) | head for head in without_nan(found.results.to_dict("records"))]
        for name in idle_in_sweep(heads, options):
            note(idle_in_words(name, heads))
    return found


@as_user_errors()
def read_run(path: Place) -> Run:
    """Read the folder of a run.

    Raises:
        UserError: the folder does not exist or is not a finished run.
    """
    return run_at(Path(path_text(path)).absolute())


@as_user_errors()
def compare(
    runs: Iterable[Run | Place] | Run | Place, shot_rule: str = "decoupling", across_subsets: bool = False
) -> pd.DataFrame:
    """Compare runs, as `tailcache analyze` does, without writing anything.

    Args:
        runs: runs, or their folders.
        shot_rule: what Many, Medium and Few mean: decoupling, oltr, or thresholds such as "200,50".
        across_subsets: average over long-tailed subsets of one source (`train --subset-seed`), whose number
            is then the column n_subsets; otherwise runs of several are refused.

    Returns:
        A row per configuration of Phase I, then one per configuration of Phase II: phase, configuration, n,
        and mean, std and change from Phase I of every accuracy, in %.

    Raises:
        UserError: a folder is not a run, the runs are of different images, or a run is given twice.
    """
    if not isinstance(shot_rule, str):
        raise UserError(f'compare: shot_rule is {shot_rule!r}; expected decoupling, oltr, or "200,50"')
    check_shot_rule(shot_rule)
    if not isinstance(across_subsets, bool):
        raise UserError(f"compare: across_subsets is {across_subsets!r}; expected True or False")
    several = [runs] if isinstance(runs, Run | str | PathLike) else list(runs)
    if not several:
        raise UserError("compare: no runs; give at least one")
    held = {one.path.resolve() for one in several if isinstance(one, Run) and one.path is not None}
    found: dict[Any, Run] = {}  # by folder, or by object: a run and the one that replaced it both count
    for one in several:
        place = None if isinstance(one, Run) else Path(path_text(one)).resolve()
        if place is None:
            found[id(one)] = one
        elif place not in held and place not in found:
            found[place] = _run_at(place)
    table, _ = measure_runs(list(found.values()), shot_rule, across_subsets)
    return compare_rows(table)


@as_user_errors()
def load_network(ckpt: Place, arch: str | None = None) -> Network:
    """Load the network of a checkpoint that `train` or `finetune` wrote: a torch module in evaluation mode.

    It maps images (B, 3, H, W), preprocessed as in training, to logits (B, K), and is on the CPU.

    Args:
        ckpt: the checkpoint file.
        arch: the function that makes the network, again, if it is your own (package.module:function): loading
            a file never runs code that only the file names.

    Raises:
        UserError: the file does not exist, is not a checkpoint of ours, or names a function that `arch` does
            not.
    """
    path = Path(path_text(ckpt))
    return restore_network(load_checkpoint(path), path, arch)


def _run_at(path: Path) -> Run:
    if is_sweep(path):
        raise RunError(f"{path}: a sweep, which keeps no predictions; rank it with `tailcache analyze`")
    return run_at(path)


def _opened(
    store: FeatureStore | Place, options: Mapping[str, Any]
) -> tuple[FeatureStore | None, dict[str, str]]:
    """The store if it is open already, else None, and the option that names it."""
    if not isinstance(store, FeatureStore):
        return None, {"store": path_text(store)}
    for name in ("cache", "cache_gib"):
        if name in options:
            raise UserError(f"{name}: the store is open already; pass it to open_store instead")
    return store, {"store": str(store.path)}
