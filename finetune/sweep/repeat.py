"""The `finetune` command that trains a head of a sweep again, with as few options as possible."""

import os
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import Any

from analysis.options import PLACES, WAYS
from finetune.config import FinetuneConfig
from finetune.methods.idle import idle_options
from finetune.methods.options import effective_options
from finetune.training.resume import unfinished_path
from store.errors import UserError
from store.names import quoted
from store.options import flag

FOLDER_OPTIONS = {"store", "out", "resume", "overwrite", "tensorboard"}  # written first, or not at all
RUN_OPTIONS = ("seed", "shot_rule", "head_ratio")  # affect every run's results, whatever its head depends on


def finetune_command(config: FinetuneConfig, out: str, n_classes: int) -> str:
    """One line for a shell: the same head, to the bit on the same machine, in its own run folder.

    Always has the method, and the seed if anything is drawn. Other options appear only where their default
    would give another head, or where the machine needs them (device, checkpoint, residency).

    Args:
        config: resolved options of the head, including its store, checkpoint, device and residency.
        out: folder for the run.
        n_classes: K.
    """
    words = ["tailcache", "finetune", "--store", config.store, "--out", out]
    least = _least(config, n_classes)
    idle = idle_options(asdict(config), (field.name for field in fields(FinetuneConfig)))
    for field in fields(FinetuneConfig):
        value = getattr(least, field.name)
        needed = field.name in ("method", "seed") or value != field.default
        if needed and field.name not in FOLDER_OPTIONS.union(idle):
            words += [flag(field.name), *(() if value is True else (str(value),))]
    return " ".join(map(quoted, words))


def _least(config: FinetuneConfig, n_classes: int) -> FinetuneConfig:
    """The configuration with defaults wherever they give the same head."""
    asked = _depends_on(config, n_classes)
    for field in fields(FinetuneConfig):
        if field.name in PLACES | WAYS or field.default is MISSING:
            continue
        tried = replace(config, **{field.name: field.default})
        try:
            if _depends_on(tried, n_classes) == asked:
                config = tried
        except UserError:  # the default is not valid with the other options
            continue
    return config


def _depends_on(config: FinetuneConfig, n_classes: int) -> dict[str, Any]:
    options = asdict(config.resolved(n_classes))
    return effective_options(options) | {name: options[name] for name in RUN_OPTIONS}


def places_of(config: FinetuneConfig) -> dict[str, Any]:
    """Options that depend on the machine, not on the head: the store's path, device, residency and so on."""
    places = {name: getattr(config, name) for name in PLACES | WAYS if name not in FOLDER_OPTIONS}
    store = config.store if "://" in config.store else os.path.abspath(config.store)
    return dict(sorted(places.items())) | {"store": store}


def free_folder(path: Path, suffix: str) -> str:
    """A free folder for a run, beside `path`: `sweep-best`, `sweep-best-2`, …; unfinished runs count too."""
    wanted = path.with_name(f"{path.name}-{suffix}")
    found, number = wanted, 1
    while found.exists() or unfinished_path(str(found)).exists():
        number += 1
        found = wanted.with_name(f"{wanted.name}-{number}")
    return str(found)
