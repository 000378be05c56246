"""The folder of a run: checks that need no heavy imports."""

import json
import os
from pathlib import Path

from store.errors import UserError
from store.storage.atomic import foreign_names

EVENTS = "events"  # folder of TensorBoard's files
RUN_FILES = (
    "config.json",
    "summary.json",
    "metrics.csv",
    "per_class.csv",
    "predictions.csv",
    "head.pt",
    "checkpoint.pt",
    EVENTS,
)


class RunError(UserError):
    """A folder is not a run of ours, or its files cannot be read."""


def check_run_exists(path: Path) -> None:
    """Raise RunError if there is no such folder."""
    if not path.is_dir():
        raise RunError(f"{path}: no such run folder; `finetune --out {path}` makes one")


def unfinished_path(out: str) -> Path:
    """File with the state of an interrupted run, beside its folder."""
    path = Path(out) if Path(out).name else Path(os.path.realpath(out))  # "." has no name
    return path.parent / f"{path.name}.unfinished.pt"


def check_no_unfinished(out: str) -> None:
    """Raise UserError if there is an interrupted run."""
    path = unfinished_path(out)
    if path.exists():
        raise UserError(
            f"{path}: an interrupted run; pass --resume to continue it, or --overwrite to start over"
        )


def foreign_to_run(path: Path) -> str | None:
    """Why a path is not just the folder of a run, in words; None if it is."""
    try:
        if "facts" in json.loads((path / "config.json").read_text()):
            return foreign_names(path, RUN_FILES) or _foreign_to_events(path / EVENTS)
    except (OSError, ValueError, TypeError):
        pass
    return foreign_names(path, ())


def _foreign_to_events(folder: Path) -> str | None:
    return foreign_names(folder, (), r"events\.out\.tfevents\..*") if folder.exists() else None
