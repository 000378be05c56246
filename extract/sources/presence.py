"""What must be there before Phase I begins, and what may not: told before anything heavy is imported."""

from pathlib import Path

from extract.config import DatasetConfig
from extract.sources.registry import find_source
from extract.training.how_far import how_far
from store.errors import CheckpointError, UserError


def check_checkpoint_exists(path: Path) -> None:
    """Raise CheckpointError where there is no file."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise CheckpointError(f"{path}: expected a checkpoint file, found {found}; `train` writes one")


def check_origin_exists(path: Path, store: object) -> None:
    """Raise CheckpointError where there is no file that a store may have been extracted with."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; name the one that {store} was extracted with")


def check_images_exist(config: DatasetConfig) -> None:
    """Raise UserError for a description without the folder that it needs, or a folder without the splits."""
    if config.val_per_class < 0:
        raise UserError(f"--val-per-class {config.val_per_class}: must be 0 or more")
    source = find_source(config.source)
    if "root" in source.options and config.root is None:
        raise UserError(f"--dataset {config.source} needs --root, the folder that holds the images")
    source.check(source_root(config))


def source_root(config: DatasetConfig) -> Path:
    """The folder that a source's images are looked for in, absolute; `Path()` where none is named."""
    return Path() if config.root is None else Path(config.root).resolve()


def check_not_trained(out: Path) -> None:
    """Raise UserError for the folder of a training run, where its checkpoint can tell without torch."""
    found = None if (out / "head.pt").exists() else how_far(out / "checkpoint.pt")
    if found is not None:
        raise occupied(out, *found)


def occupied(out: Path, epoch: int, epochs: int) -> UserError:
    """What to say of a run that is neither to be gone on with nor replaced.

    Args:
        out: its folder.
        epoch: epochs that are finished.
        epochs: that there are to be.
    """
    state, way_on = "a finished run", ""
    if epoch < epochs:
        state, way_on = "an unfinished run", "--resume to continue it, "
    return UserError(
        f"{out}: already holds {state} (epoch {epoch} of {epochs}); pass {way_on}--overwrite to replace it, "
        "or another --out"
    )


def check_begun(path: Path) -> None:
    """Raise UserError where the checkpoint of a run that is to be gone on with is not there."""
    if not path.exists():
        raise UserError(
            f"{path}: nothing to resume is there; leave --resume out to begin, or name another --out"
        )
