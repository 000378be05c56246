"""The folder of a run, told by its names and its config.json: before anything heavy is imported."""

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
    """A folder is no run of ours, or its files cannot be read."""


def check_run_exists(path: Path) -> None:
    """Raise RunError where there is no folder."""
    if not path.is_dir():
        raise RunError(f"{path}: no such run folder; `finetune --out {path}` makes one")


def unfinished_path(out: str) -> Path:
    """Where the state of an interrupted run lies: beside its folder."""
    path = Path(out) if Path(out).name else Path(os.path.realpath(out))  # "." has no name
    return path.parent / f"{path.name}.unfinished.pt"


def check_no_unfinished(out: str) -> None:
    """Raise UserError where an interrupted run lies, which is neither to be gone on with nor replaced."""
    path = unfinished_path(out)
    if path.exists():
        raise UserError(
            f"{path}: an interrupted run; pass --resume to go on with it, or --overwrite to begin anew"
        )


def foreign_to_run(path: Path) -> str | None:
    """What tells that a path is not the folder of a run alone; None where it is."""
    try:
        if "facts" in json.loads((path / "config.json").read_text()):
            return foreign_names(path, RUN_FILES) or _foreign_to_events(path / EVENTS)
    except (OSError, ValueError, TypeError):
        pass
    return foreign_names(path, ())


def _foreign_to_events(folder: Path) -> str | None:
    names = [path.name for path in folder.glob("events.out.tfevents.*")]
    return foreign_names(folder, names) if folder.exists() else None
