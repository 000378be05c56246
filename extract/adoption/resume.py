"""Going on with an extraction: its checkpoint is there, and the options must be those that made it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import Progress

from extract.adoption.adopt import training_options
from extract.adoption.class_lists import in_words
from extract.checkpoints.checkpoint import Checkpoint, load_checkpoint
from extract.checkpoints.restore import Restored, restore
from extract.config import ExtractConfig
from extract.sources.tables.labels import read_class_names
from extract.training.interrupted.resume import MAY_CHANGE
from store.errors import CheckpointError, UserError
from store.options import flag

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
    if (found := differing(config, checkpoint)) is not None:
        name, was, now = found
        raise UserError(
            f"{config.store}: was started with another {name} ({was}) than now ({now}); use the same, or "
            "pass --overwrite to start over"
        )
    try:
        return restore(held, config.dataset.root, progress, arch=config.network.arch)
    except CheckpointError as error:  # images changed since
        raise CheckpointError(f"{error}; with --overwrite, the extraction starts over") from error


def differing(config: ExtractConfig, checkpoint: Checkpoint) -> tuple[str, Any, Any] | None:
    """The first option that differs from that of a checkpoint: its name, and what it was and is."""
    was, now = _compared(checkpoint.config), _compared(_asked(config))
    for name in sorted(was.keys() | now.keys()):
        if was.get(name) != now.get(name):
            if name == "weights_digest":
                return "file of weights", f"{was[name]}"[:SHOWN] + "…", f"{now[name]}"[:SHOWN] + "…"
            return flag(name), was.get(name), now.get(name)
    return _other_order(config, checkpoint)


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


def _other_order(config: ExtractConfig, checkpoint: Checkpoint) -> tuple[str, str, str] | None:
    if config.dataset.class_names is None:
        file = checkpoint.config["dataset"]["class_names"]
        return None if file is None else ("order of classes", f"--class-names {file}", "no --class-names")
    known = set(checkpoint.class_names)
    names = [name for name in read_class_names(Path(config.dataset.class_names)) if name in known]
    if names == checkpoint.class_names:
        return None
    return "order of classes", in_words(checkpoint.class_names), in_words(names)
