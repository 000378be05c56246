"""Resuming a training run: its options, and those that may not change."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from extract.checkpoints.checkpoint import Checkpoint, described, load_checkpoint
from extract.config import FILLED_BY_RECIPES, DatasetConfig, NetworkConfig, TrainConfig
from extract.images.augmentation.config import AugmentConfig
from extract.networks.registry import check_named
from extract.sources.config import FILES
from extract.sources.presence import check_resumable, occupied
from extract.training.losses.config import LossConfig
from extract.training.optimisation.config import OptimConfig
from extract.training.recipes import RECIPES
from extract.training.recorded import OFF
from store.errors import UserError
from store.names import quoted
from store.options import registered
from store.storage.atomic import check_not_both, check_replaceable, foreign_names

NESTED = {
    "network": NetworkConfig,
    "dataset": DatasetConfig,
    "objective": LossConfig,
    "augmentation": AugmentConfig,
    "optimisation": OptimConfig,
}
SHOWN = 8  # hexadecimal digits of a digest
NAMED = ("network", "dataset")  # every checkpoint has them
# What may change on resuming. Moved images and tables may: the fingerprint tells whether they are the same.
MAY_CHANGE = {
    "device",
    "workers",
    "out",
    "resume",
    "overwrite",
    "root",
    "download",
    "skipped",
    "tail_order",
    "class_order",
    "moved_from",
    *FILES,
}


def resumed_config(out: str, given: dict[str, Any]) -> TrainConfig:
    """The options of the run in `out`, updated with those given now.

    The stored `overwrite` is ignored: it was about the folder's content then.

    Args:
        out: folder of the run.
        given: options that the user named, flat, including those of the network and the data set.
    """
    path = Path(out) / "checkpoint.pt"
    check_resumable(path)
    checkpoint = load_checkpoint(path)
    if checkpoint.adopted:
        raise UserError(
            f"{path}: is a checkpoint that `extract` wrote, of a network that another program trained, so "
            f"there is no training to resume; `train --weights {quoted(path)}` begins one with its weights"
        )
    stored = _without_later(_stored_config(checkpoint, path))
    check_named(stored.network.arch, given.get("arch"), path)
    # Here, since options that depend on these two would be refused first.
    was = {"loss": stored.objective.loss, "drw_epoch": stored.objective.drw_epoch}
    was |= {} if stored.objective.drw_epoch is None else {"epochs": stored.epochs}
    for name, value in was.items():
        _check_same(out, name, value, given.get(name, value))
    if "root" in given:
        stored = replace(stored, dataset=stored.dataset.moved(given["root"]))
    nested = {name: vars(getattr(stored, name)).keys() & given.keys() for name in NESTED}
    changed = {
        name: replace(getattr(stored, name), **{option: given[option] for option in options})
        for name, options in nested.items()
    }
    own = {option: value for option, value in given.items() if option in vars(stored)}
    return replace(stored, **{"overwrite": False} | own | {"out": out, "resume": True} | changed)


def _stored_config(checkpoint: Checkpoint, path: Path) -> TrainConfig:
    content = {name: {} for name in NESTED if name not in NAMED} | checkpoint.config  # of older versions
    nested = {name: described(kind, content.get(name), path) for name, kind in NESTED.items()}
    # Version 0.1 accepted and kept options that the source does not take.
    dataset = nested["dataset"]
    nested["dataset"] = replace(dataset, **{name: getattr(DatasetConfig, name) for name in dataset.idle()})
    config = described(TrainConfig, content | nested, path)
    registered(f"{path}: --recipe", RECIPES, config.recipe)
    return config


def _without_later(stored: TrainConfig) -> TrainConfig:
    """Options that can be off and that a run was begun without: off, though its recipe has gained them."""
    gained = RECIPES[stored.recipe].options.keys() & OFF.keys()
    off = {
        name: {option: OFF[option] for option in gained if getattr(config, option, OFF) is None}
        for name, config in ((name, getattr(stored, name)) for name in FILLED_BY_RECIPES)
    }
    return replace(
        stored, **{name: replace(getattr(stored, name), **options) for name, options in off.items()}
    )


def _foreign_to_training(out: Path) -> str | None:
    """Why a folder is not a training run, None if it is; files besides a run's own are left alone."""
    try:
        content = json.loads((out / "config.json").read_text())
        if isinstance(content, dict) and content.keys() >= {"network", "dataset", "recipe"}:
            return None  # even if its checkpoint is damaged
    except (OSError, ValueError):
        pass
    try:
        load_checkpoint(out / "checkpoint.pt")
    except UserError:
        return foreign_names(out, ())
    return None


def earlier_run(config: TrainConfig) -> Checkpoint | None:
    """The checkpoint that a resolved config resumes, which may be finished; None for a new run.

    Raises:
        UserError: the folder holds a run that this one may neither replace nor continue.
    """
    path = Path(config.out) / "checkpoint.pt"
    check_not_both(config.out, "a run", config.resume, config.overwrite)
    if path.with_name("head.pt").exists():
        raise UserError(f"{config.out}: holds a run of `finetune`, not a training run; name another --out")
    check_replaceable(path.parent, "training run", _foreign_to_training, overwrite=True)
    if not config.resume and (config.overwrite or not path.exists()):
        return None
    previous = load_checkpoint(path)
    if not config.resume:
        raise occupied(path.parent, previous.epoch, previous.config["epochs"])
    stored, asked = flat_options(_stored_config(previous, path)), flat_options(config)
    for name in sorted(stored.keys() - MAY_CHANGE):
        if not _both_off(name, stored[name], asked[name]):
            _check_same(config.out, name, stored[name], asked[name])
    return previous


def _both_off(name: str, *values: Any) -> bool:
    return name in OFF and all(value in (None, OFF[name]) for value in values)


def in_words(previous: Checkpoint | None) -> str:
    """Which run is resumed, for comparing processes; the seconds of its epochs are like those of no other."""
    if previous is None:
        return "none"
    digest = hashlib.sha256(repr(previous.history).encode()).hexdigest()
    return f"{previous.epoch} epochs (metrics of SHA-256 {digest[:SHOWN]}…)"


def _check_same(out: str, name: str, stored: Any, asked: Any) -> None:
    if stored != asked:
        raise UserError(
            f"{out}: cannot resume: {name} was {stored}, now it is {asked}; leave the option out, or start "
            "over with --overwrite"
        )


def with_found(dataset: DatasetConfig, previous: Checkpoint) -> DatasetConfig:
    """A description with what an earlier run found when it listed the images."""
    found = {"skipped": (), "tail_order": "class index", "class_order": None} | previous.dataset
    order = found["class_order"] and tuple(found["class_order"])
    return replace(
        dataset, skipped=tuple(found["skipped"]), tail_order=found["tail_order"], class_order=order
    )


def flat_options(config: TrainConfig) -> dict[str, Any]:
    """All options by name, those of nested configs too."""
    content = asdict(config)
    for name in NESTED:
        content |= content.pop(name)
    return content
