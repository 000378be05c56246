"""The `finetune` command that makes a head again: no more options than it takes."""

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

OF_FOLDER = {"store", "out", "resume", "overwrite", "tensorboard"}  # said first, or saying nothing of a head
OF_EVERY_RUN = ("seed", "shot_rule", "head_ratio")  # what a run tells, whatever its head depends on


def finetune_command(config: FinetuneConfig, out: str, n_classes: int) -> str:
    """One line for a shell: the same head, to the bit on the same machine, in a run folder of its own.

    The method is always named, and the seed where anything is drawn; of the other options those that the head
    depends on and whose defaults give another one, and where it is made, if not where the defaults say and
    if that changes anything.

    Args:
        config: resolved options of the head, and where its store, checkpoint and maps are.
        out: folder of the run.
        n_classes: K.
    """
    words = ["tailcache", "finetune", "--store", config.store, "--out", out]
    least = _least(config, n_classes)
    untold = OF_FOLDER.union(idle_options(asdict(config), (field.name for field in fields(FinetuneConfig))))
    for field in fields(FinetuneConfig):
        value = getattr(least, field.name)
        told = field.name in ("method", "seed") or value != field.default
        if told and field.name not in untold:
            words += [flag(field.name), *(() if value is True else (str(value),))]
    return " ".join(map(quoted, words))


def _least(config: FinetuneConfig, n_classes: int) -> FinetuneConfig:
    """The same head with defaults wherever they make no difference to it."""
    asked = _depends_on(config, n_classes)
    for field in fields(FinetuneConfig):
        if field.name in PLACES | WAYS or field.default is MISSING:
            continue
        tried = replace(config, **{field.name: field.default})
        try:
            if _depends_on(tried, n_classes) == asked:
                config = tried
        except UserError:  # a default that does not go with the other options
            continue
    return config


def _depends_on(config: FinetuneConfig, n_classes: int) -> dict[str, Any]:
    options = asdict(config.resolved(n_classes))
    return effective_options(options) | {name: options[name] for name in OF_EVERY_RUN}


def places_of(config: FinetuneConfig) -> dict[str, Any]:
    """Where a head is made: the options that differ between machines and not between heads."""
    places = {name: getattr(config, name) for name in PLACES | WAYS if name not in OF_FOLDER}
    store = config.store if "://" in config.store else os.path.abspath(config.store)
    return dict(sorted(places.items())) | {"store": store}


def free_folder(path: Path, suffix: str) -> str:
    """A name beside a folder for a run, that no run has, finished or not: `sweep-best`, `sweep-best-2`, …"""
    wanted = path.with_name(f"{path.name}-{suffix}")
    found, number = wanted, 1
    while found.exists() or unfinished_path(str(found)).exists():
        number += 1
        found = wanted.with_name(f"{wanted.name}-{number}")
    return str(found)
