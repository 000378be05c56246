"""Options of Phase I that came after version 0.1; stores record those that are not at their defaults."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from extract.config import TrainConfig
from extract.images.augmentation.config import AugmentConfig
from extract.training.losses.config import LossConfig
from extract.training.optimisation.config import OptimConfig

LATER = {"objective": LossConfig, "augmentation": AugmentConfig, "optimisation": OptimConfig}
LATER_OWN = ("sampler",)  # of TrainConfig itself
OFF = {  # values that mean the same as None, with which a user turns off what a recipe sets
    "augment": "none",
    "decay_on_norms": True,
    **dict.fromkeys(("remix", "nesterov", "decoupled_decay"), False),
    **dict.fromkeys(("jitter", "cutout", "erasing", "mixup", "cutmix", "mixup_features"), 0),
    **dict.fromkeys(("ema_decay", "sam"), 0),
}
PROCESSES = "processes"  # that shared each batch, in the history of a checkpoint where there were several


def defaults() -> dict[str, Any]:
    """What each option is where a store does not record it."""
    own = {name: getattr(TrainConfig, name) for name in LATER_OWN}
    of_later = {f.name: f.default for kind in LATER.values() for f in fields(kind)}
    return own | of_later | {PROCESSES: 1}


def recorded(
    config: dict[str, Any], history: Sequence[dict[str, Any]] = (), n_images: int | None = None
) -> dict[str, Any]:
    """What of a training is not at its defaults, by option; trainings that are the same have the same.

    Args:
        config: a checkpoint's; older ones lack all of these options.
        history: its rows. In several processes on CPUs BatchNorm sees a share of each batch.
        n_images: in an epoch, of which a step has at most all; None for enough.
    """
    flat = {name: config[name] for name in LATER_OWN if name in config}
    for place in LATER:
        flat |= config.get(place, {})
    flat |= {name: None for name, off in OFF.items() if flat.get(name) == off}
    asked = (config.get("batch_size") or 0) * flat.get("accumulate", 1)
    if flat.get("lr_batch_size") == (asked if n_images is None else min(asked, n_images)):
        flat["lr_batch_size"] = None  # nothing is scaled
    if flat.get("classifier_lr") == config.get("lr"):
        flat["classifier_lr"] = None
    worlds = sorted({row.get(PROCESSES, 1) for row in history} or {1})
    flat[PROCESSES] = worlds[0] if len(worlds) == 1 else " and ".join(map(str, worlds))
    return {
        name: flat.get(name, value) for name, value in defaults().items() if flat.get(name, value) != value
    }
