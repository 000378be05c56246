"""Early checks: wrong paths and numbers are refused before anything heavy is imported.

Every check is defined, and made again, where its subject is used.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from extract.adoption.options import check_phase1_options
from extract.config import (
    EvaluateConfig,
    ExtractConfig,
    SampleConfig,
    TrainConfig,
)
from extract.deploy.config import ExportConfig, PredictConfig
from extract.device_names import check_device
from extract.networks.registry import check_arch, check_named_network, check_weights
from extract.options import check_shot_rule
from extract.parts.options import part_of
from extract.sources.presence import (
    check_checkpoint_exists,
    check_images_exist,
    check_not_trained,
    check_phase1_exists,
    check_resumable,
)
from extract.torchrun.environment import is_first_process, n_processes
from finetune.compare.config import AnalyzeConfig
from finetune.compare.folder import check_no_foreign_files
from finetune.config import FinetuneConfig
from finetune.contest.config import ContestConfig
from finetune.contest.taken import check_not_taken as check_contest_not_taken
from finetune.demo import DemoConfig
from finetune.forecast.config import ForecastConfig
from finetune.run_folder import check_no_unfinished, check_run_exists, foreign_to_run
from finetune.sweep.config import SweepConfig
from store.errors import UserError, check_utf8
from store.options import MOST
from store.storage.atomic import check_folders_above, check_not_both, check_not_root, check_replaceable

TOGETHER = ("train", "extract", "evaluate", "sweep", "contest")  # commands that several processes share


def check_training(config: TrainConfig) -> None:
    """Raise UserError for what `train` would refuse.

    With `--resume` the data set is not checked: its description is in the checkpoint.
    """
    if config.resume:
        config.check_numbers()
        check_arch(config.network.arch)
        check_device(config.device)
        check_resumable(Path(config.out) / "checkpoint.pt")
        check_not_both(config.out, "a run", config.resume, config.overwrite)
        return
    resolved = config.resolved()
    check_named_network(resolved.network)
    check_weights(resolved.network)
    check_device(config.device)
    if not config.overwrite:
        check_not_trained(Path(config.out))
    check_images_exist(config.dataset)


def check_processes(command: str | None) -> None:
    """Raise UserError if `torchrun` started several processes of a command that is for one."""
    if command not in (None, *TOGETHER) and (world := n_processes()) > 1:
        raise UserError(
            f"{command}: runs in one process, and WORLD_SIZE says that there are {world}; start it without "
            f"torchrun ({', '.join(TOGETHER)} share their work out)"
        )


def check_extraction(config: ExtractConfig) -> None:
    """Raise UserError for what `extract` would refuse."""
    config.check()
    check_device(config.device)
    check_phase1_options(config)
    if part_of(config) is None:
        check_target(config.store, config.resume, config.overwrite)


def check_evaluation(config: EvaluateConfig) -> None:
    """Raise UserError for what `evaluate` would refuse."""
    config.check()
    check_device(config.device)
    check_checkpoint_exists(Path(config.ckpt))


def check_prediction(config: PredictConfig) -> None:
    """Raise UserError for what `predict` would refuse."""
    config.check()
    check_device(config.device)
    check_checkpoint_exists(Path(config.ckpt))


def check_export(config: ExportConfig) -> None:
    """Raise UserError for what `export` would refuse."""
    check_checkpoint_exists(Path(config.ckpt))
    config.check()


def check_finetuning(config: FinetuneConfig) -> None:
    """Raise UserError for what `finetune` would refuse."""
    check_store_exists(config.store)
    config.check_numbers(MOST)
    check_device(config.device)
    check_not_both(config.out, "a run", config.resume, config.overwrite)
    if config.out is not None and not (config.resume or config.overwrite):
        check_no_unfinished(config.out)
        check_replaceable(Path(config.out), "run", foreign_to_run, overwrite=False)


def check_sweep(config: SweepConfig) -> None:
    """Raise UserError for what `sweep` would refuse."""
    check_store_exists(config.base.store)
    for one in (config.base, *config.configurations()):
        one.check_numbers(MOST)
    check_device(config.base.device)
    from finetune.sweep.taken import check_not_taken  # imports numpy, which --help does without

    check_not_taken(config)


def check_contest(config: ContestConfig) -> None:
    """Raise UserError for what `contest` would refuse."""
    config.check()
    for store in config.store:
        check_store_exists(store)
    check_device(config.device)
    if is_first_process():  # it may have begun, and then the others find its folder
        check_contest_not_taken(config)


def check_store_exists(text: str) -> None:
    """Raise StoreError if a store on a local disk does not exist."""
    from store.storage.location import check_exists, locate  # imports numpy, which --help does without

    where = locate(text)
    if isinstance(where, Path):
        check_exists(where)


def check_target(text: str, resume: bool, overwrite: bool) -> None:
    """Raise UserError for a target that cannot be written.

    If something is there on a local disk, zarr and h5py are imported to see what it is; they take a fraction
    of torch's time.
    """
    from store.storage.location import check_suffix, draft_place, locate

    where = locate(text)
    check_suffix(where)
    if isinstance(where, Path) and (os.path.lexists(where) or os.path.lexists(draft_place(where))):
        from store.drafts.lifecycle import check_writable

        check_writable(where, resume, overwrite)


def check_analysis(config: AnalyzeConfig) -> None:
    """Raise UserError for what `analyze` would refuse."""
    check_shot_rule(config.shot_rule)
    check_utf8(config.out, *config.runs)
    for run in config.runs:
        check_run_exists(Path(run).resolve())
    check_no_foreign_files(Path(config.out))


def check_proof(path: str, config: SampleConfig) -> None:
    """Raise UserError for what `store verify` would refuse."""
    check_store_exists(path)
    config.checked()
    if config.ckpt is not None:
        check_phase1_exists(Path(config.ckpt), path)


def check_planning(config: ForecastConfig, given: Iterable[str]) -> None:
    """Raise UserError for what `store plan` would refuse; `given` are the options that the user gave."""
    from finetune.forecast.options import check_beside_checkpoint, check_local

    check_beside_checkpoint(given, config.network.arch)
    config.check_numbers()
    check_device(config.device)
    check_local(config.store)
    if config.ckpt is not None:
        check_checkpoint_exists(Path(config.ckpt))
    else:
        check_named_network(config.network)
        check_images_exist(config.dataset.resolved())
    check_target(config.store, resume=False, overwrite=True)


def check_demo(config: DemoConfig) -> None:
    """Raise UserError for what `demo` would refuse."""
    check_device(config.device)
    check_utf8(config.out)
    check_not_root(Path(config.out), "the demo")
    check_folders_above(Path(config.out) / "seed0")
