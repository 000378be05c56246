"""Going on with an extraction: its checkpoint is there, and the options must be those that made it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import Progress

from extract.adoption.adopt import training_options
from extract.checkpoints.checkpoint import Checkpoint, load_checkpoint
from extract.checkpoints.restore import Restored, restore
from extract.config import ExtractConfig
from extract.sources.tables.labels import read_class_names
from extract.training.resume import MAY_CHANGE
from store.errors import UserError
from store.options import flag

DIGEST = "file of weights"
WORDS = {"weights_digest": DIGEST}  # of what is no option
SHOWN = 8  # hexadecimal digits of a digest


def resumed(config: ExtractConfig, held: Path, progress: Progress) -> Restored:
    """Phase I as an interrupted extraction began it, from its checkpoint.

    Args:
        config: the options, which must be those of the interrupted extraction.
        held: the file of its checkpoint.
        progress: shows the reading of images.

    Raises:
        UserError: an option or the weights differ, or the images changed.
    """
    checkpoint = load_checkpoint(held)
    was, now = _compared(checkpoint.config), _compared(_asked(config))
    for name in sorted(was.keys() | now.keys()):
        if was.get(name) != now.get(name):
            raise _other(config, WORDS.get(name, flag(name)), was.get(name), now.get(name))
    _check_same_order(config, checkpoint)
    return restore(held, config.dataset.root, progress, arch=config.network.arch)


def _asked(config: ExtractConfig) -> dict[str, Any]:
    return asdict(training_options(config)) | {"classifier": config.classifier or "checkpoint"}


def _compared(content: dict[str, Any]) -> dict[str, Any]:
    """The options that must not change; a file of weights is known by its digest."""
    network, dataset = content["network"], content["dataset"]
    own = ("image_size", "mean", "std", "crop", "interpolation", "seed", "classifier")
    flat = {name: content[name] for name in own} | network | dataset
    if network["weights_digest"] is not None:
        del flat["weights"]
    return {name: value for name, value in flat.items() if name not in MAY_CHANGE}


def _check_same_order(config: ExtractConfig, checkpoint: Checkpoint) -> None:
    if config.dataset.class_names is None:
        return
    known = set(checkpoint.class_names)
    names = [name for name in read_class_names(Path(config.dataset.class_names)) if name in known]
    if names != checkpoint.class_names:
        raise _other(config, "order of classes", ", ".join(checkpoint.class_names[:3]), ", ".join(names[:3]))


def _other(config: ExtractConfig, name: str, was: Any, now: Any) -> UserError:
    was, now = (f"{value[:SHOWN]}…" if name == DIGEST else value for value in (was, now))
    return UserError(
        f"{config.store}: was started with another {name} ({was}) than now ({now}); use the same, or pass "
        "--overwrite to start over"
    )
