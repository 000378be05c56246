"""Checks that files and folders exist, or do not, made before anything heavy is imported."""

import re
from pathlib import Path

from extract.config import DatasetConfig
from extract.sources.held_out import check_held_out
from extract.sources.registry import find_source
from extract.training.interrupted.how_far import how_far
from store.errors import CheckpointError, UserError

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/")  # https:// and s3://, as a Path has them


def check_checkpoint_exists(path: Path) -> None:
    """Raise CheckpointError if there is no file."""
    if not path.is_file():
        if ADDRESS.match(str(path)):
            address = str(path).replace(":/", "://", 1)  # a Path has one of its slashes
            raise CheckpointError(f"{address}: an address; download it, and name the file")
        found = "a folder" if path.is_dir() else "nothing"
        raise CheckpointError(
            f"{path}: expected a checkpoint file, found {found}; `train` writes one, and `extract` takes "
            "other programs' too"
        )


def check_phase1_exists(path: Path, store: object) -> None:
    """Raise CheckpointError if there is no file with which a store may have been extracted."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; name the one that {store} was extracted with")


def check_images_exist(config: DatasetConfig) -> None:
    """Raise UserError if a description lacks the folder that it needs, or the folder lacks a split."""
    check_held_out(config)
    source = find_source(config.source)
    if "root" in source.options and config.root is None and source.default_root is None:
        raise UserError(f"--dataset {config.source} needs --root, the folder that holds the images")
    source.check(source_root(config), config)


def source_root(config: DatasetConfig) -> Path:
    """The folder of a source's images, absolute and without links; `Path()` if there is none."""
    default_root = find_source(config.source).default_root
    root = default_root(config) if config.root is None and default_root is not None else config.root
    return Path() if root is None else Path(root).resolve()


def check_not_trained(out: Path) -> None:
    """Raise UserError for the folder of a training run, if its checkpoint can be recognised without torch."""
    found = None if (out / "head.pt").exists() else how_far(out / "checkpoint.pt")
    if found is not None:
        raise occupied(out, *found)


def occupied(out: Path, epoch: int, epochs: int) -> UserError:
    """The error for a run that may neither be resumed nor replaced.

    Args:
        out: its folder.
        epoch: number of finished epochs.
        epochs: total number of epochs.
    """
    state, resume = "a finished run", ""
    if epoch < epochs:
        state, resume = "an interrupted run", "--resume to continue it, "
    return UserError(
        f"{out}: already holds {state} (epoch {epoch} of {epochs}); pass {resume}--overwrite to replace it, "
        "or another --out"
    )


def check_resumable(path: Path) -> None:
    """Raise UserError if the checkpoint of the run to resume does not exist."""
    if not path.exists():
        raise UserError(
            f"{path}: no such checkpoint to resume; leave --resume out to start, or name another --out"
        )
