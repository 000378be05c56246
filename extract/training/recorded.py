"""Options of Phase I that came after version 0.1; stores record those that are not at their defaults."""

from dataclasses import fields
from typing import Any

from extract.config import TrainConfig
from extract.images.augmentation.config import AugmentConfig
from extract.training.losses.config import LossConfig
from extract.training.optimisation.config import OptimConfig

LATER = {"objective": LossConfig, "augmentation": AugmentConfig, "optimisation": OptimConfig}
LATER_OWN = ("sampler",)  # of TrainConfig itself


def defaults() -> dict[str, Any]:
    """What each option is where a store does not record it."""
    own = {name: getattr(TrainConfig, name) for name in LATER_OWN}
    return own | {f.name: f.default for kind in LATER.values() for f in fields(kind)}


def recorded(config: dict[str, Any]) -> dict[str, Any]:
    """The options in a checkpoint's config that are not at their defaults; older configs lack them all."""
    flat = {name: config[name] for name in LATER_OWN if name in config}
    for place in LATER:
        flat |= config.get(place, {})
    return {
        name: flat.get(name, value) for name, value in defaults().items() if flat.get(name, value) != value
    }
