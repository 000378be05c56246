"""What a command is refused for before anything heavy is imported: paths and numbers that are wrong.

Each rule stands where its subject is used, and is asked for there again.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from extract.config import (
    EvaluateConfig,
    ExtractConfig,
    ForecastConfig,
    NetworkConfig,
    SampleConfig,
    TrainConfig,
)
from extract.device_names import refuse_unknown_device
from extract.networks.names import ARCHITECTURES, refuse_unknown_name, refuse_unsuited
from extract.options import check_shot_rule
from extract.sources.presence import (
    refuse_missing_checkpoint,
    refuse_missing_images,
    refuse_missing_origin,
    refuse_nothing_begun,
    refuse_trained,
)
from finetune.compare.config import AnalyzeConfig
from finetune.compare.folder import refuse_foreign_files
from finetune.config import FinetuneConfig
from finetune.run_folder import foreign_to_run, refuse_missing_run, refuse_unfinished
from finetune.sweep.config import SweepConfig
from store.errors import refuse_undecodable
from store.options import MOST
from store.storage.atomic import refuse_both, refuse_existing


def refuse_training(config: TrainConfig) -> None:
    """Raise UserError for what `train` would refuse.

    With `--resume` nothing is said of the data set: what is not given is stored in the checkpoint.
    """
    if config.resume:
        config.check_numbers()
        refuse_unknown_name(config.network.arch)
        refuse_unknown_device(config.device)
        refuse_nothing_begun(Path(config.out) / "checkpoint.pt")
        refuse_both(config.out, "a run", config.resume, config.overwrite)
        return
    resolved = config.resolved()
    refuse_unknown_network(resolved.network)
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
    refuse_both(config.out, "a run", config.resume, config.overwrite)
    if not (config.resume or config.overwrite):
        refuse_unfinished(config.out)
        refuse_existing(Path(config.out), "run", foreign_to_run, overwrite=False)


def refuse_sweep(config: SweepConfig) -> None:
    """Raise UserError for what `sweep` would refuse."""
    refuse_missing_store(config.base.store)
    for one in (config.base, *config.configurations()):
        one.check_numbers(MOST)
    refuse_unknown_device(config.base.device)
    from finetune.sweep.taken import refuse_taken  # numpy, which --help does without

    refuse_taken(config)


def refuse_missing_store(text: str) -> None:
    """Raise StoreError for a store on a local disk that is not there."""
    from store.storage.location import locate, refuse_absent  # numpy, which --help does without

    where = locate(text)
    if isinstance(where, Path):
        refuse_absent(where)


def refuse_target(text: str, resume: bool, overwrite: bool) -> None:
    """Raise UserError for a place where no store may be written.

    Where something lies on a local disk, zarr and h5py are asked what it is: they take a fraction of the time
    that torch takes.
    """
    from store.storage.location import locate, refuse_other_suffix, unfinished_place

    where = locate(text)
    refuse_other_suffix(where)
    if isinstance(where, Path) and (os.path.lexists(where) or os.path.lexists(unfinished_place(where))):
        from store.drafts.lifecycle import check_writable

        check_writable(where, resume, overwrite)


def refuse_analysis(config: AnalyzeConfig) -> None:
    """Raise UserError for what `analyze` would refuse."""
    check_shot_rule(config.shot_rule)
    refuse_undecodable(config.out, *config.runs)
    for run in config.runs:
        refuse_missing_run(Path(run).resolve())
    refuse_foreign_files(Path(config.out))


def refuse_proof(path: str, config: SampleConfig) -> None:
    """Raise UserError for what `store verify` would refuse."""
    refuse_missing_store(path)
    config.checked()
    if config.ckpt is not None:
        refuse_missing_origin(Path(config.ckpt), path)


def refuse_planning(config: ForecastConfig, given: Iterable[str]) -> None:
    """Raise UserError for what `store plan` would refuse; `given` are the options that the user named."""
    from finetune.forecast.options import refuse_beside_checkpoint, refuse_bucket

    refuse_beside_checkpoint(given)
    config.check_numbers()
    refuse_unknown_device(config.device)
    refuse_bucket(config.store)
    if config.ckpt is not None:
        refuse_missing_checkpoint(Path(config.ckpt))
    else:
        refuse_unknown_network(config.network)
        refuse_missing_images(config.dataset.resolved())
    refuse_target(config.store, resume=False, overwrite=True)


def refuse_unknown_network(config: NetworkConfig) -> None:
    """Raise UserError for a network that is unknown, or does not take its options."""
    refuse_unknown_name(config.arch)
    if config.arch in ARCHITECTURES:  # of others torchvision says first whether they can be used at all
        refuse_unsuited(config)
