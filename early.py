"""What a command is refused for before anything heavy is imported: paths and numbers that are wrong.

Each rule stands where its subject is used, and is asked for there again.
"""

import os
from pathlib import Path

from extract.arch_names import refuse_unknown_name
from extract.config import EvaluateConfig, ExtractConfig, TrainConfig
from extract.device_names import refuse_unknown_device
from extract.presence import (
    refuse_missing_checkpoint,
    refuse_missing_images,
    refuse_nothing_begun,
    refuse_trained,
)
from finetune.config import FinetuneConfig
from finetune.run_folder import foreign_to_run, refuse_missing_run, refuse_unfinished
from finetune.sweep_config import SweepConfig
from store.atomic import refuse_existing
from store.errors import MOST


def refuse_training(config: TrainConfig) -> None:
    """Raise UserError for what `train` would refuse.

    With `--resume` nothing is said of the data set: what is not given is stored in the checkpoint.
    """
    if config.resume:
        config.check_numbers()
        refuse_unknown_name(config.network.arch)
        refuse_unknown_device(config.device)
        refuse_nothing_begun(Path(config.out) / "checkpoint.pt")
        return
    resolved = config.resolved()
    refuse_unknown_name(resolved.network.arch)
    refuse_unknown_device(config.device)
    if not config.overwrite:
        refuse_trained(Path(config.out))
    refuse_missing_images(config.dataset)


def refuse_extraction(config: ExtractConfig) -> None:
    """Raise UserError for what `extract` would refuse."""
    refuse_images_run(config)
    refuse_target(config.store, config.resume, config.overwrite)


def refuse_images_run(config: ExtractConfig | EvaluateConfig) -> None:
    """Raise UserError for what any command would refuse that brings a checkpoint's images through it."""
    config.check()
    refuse_unknown_device(config.device)
    refuse_missing_checkpoint(Path(config.ckpt))


def refuse_finetuning(config: FinetuneConfig) -> None:
    """Raise UserError for what `finetune` would refuse."""
    refuse_missing_store(config.store)
    config.check_numbers(MOST)
    refuse_unknown_device(config.device)
    if not (config.resume or config.overwrite):
        refuse_unfinished(config.out)
        refuse_existing(Path(config.out), "run", foreign_to_run, overwrite=False)


def refuse_sweep(config: SweepConfig) -> None:
    """Raise UserError for what `sweep` would refuse."""
    refuse_missing_store(config.base.store)
    config.base.check_numbers(MOST)
    refuse_unknown_device(config.base.device)


def refuse_missing_store(text: str) -> None:
    """Raise StoreError for a store on a local disk that is not there."""
    from store.location import locate, refuse_absent  # numpy, which --help does without

    where = locate(text)
    if isinstance(where, Path):
        refuse_absent(where)


def refuse_target(text: str, resume: bool, overwrite: bool) -> None:
    """Raise UserError for a place where no store may be written.

    Where something lies on a local disk, zarr and h5py are asked what it is: they take a fraction of the time
    that torch takes.
    """
    from store.location import locate, refuse_other_suffix, unfinished_place

    where = locate(text)
    refuse_other_suffix(where)
    if isinstance(where, Path) and (os.path.lexists(where) or os.path.lexists(unfinished_place(where))):
        from store.unfinished import check_writable

        check_writable(where, resume, overwrite)


def refuse_missing_runs(runs: tuple[str, ...]) -> None:
    """Raise RunError for a run that is not there."""
    for run in runs:
        refuse_missing_run(Path(run).resolve())
