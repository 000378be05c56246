"""Whether a contest's folder is taken: checks of what lies there, made before heavy imports."""

import json
import re
from pathlib import Path

from finetune.contest.config import ContestConfig
from finetune.run_folder import foreign_to_run
from store.errors import UserError
from store.storage.atomic import check_not_both, check_replaceable, foreign_names, is_leftover

FORMAT, MARKER, DONE = "tailcache-contest", "contest.json", "done"
TABLES = ("standings.csv", "heads.csv")
BEST, AVERAGE = "best", "average"
RUN = re.compile(rf"({BEST}|{AVERAGE})(-\d+)?")
UNFINISHED = re.compile(rf"{BEST}(-\d+)?\.unfinished\.pt")
DONE_FILES = (".json", ".pt")  # of a head: its results, and its layer


def run_folders(path: Path, name: str, n_stores: int) -> list[Path]:
    """The folders of the winner's runs, or of the average's, one for each store."""
    return [path / name] if n_stores == 1 else [path / f"{name}-{i + 1}" for i in range(n_stores)]


def results_of(path: Path) -> list[Path]:
    """What a contest writes at its end, as far as it is there: tables, and runs that may be unfinished."""
    ours = [e for e in path.glob("*") if e.name in TABLES or RUN.fullmatch(e.name)]
    return ours + [e for e in path.glob("*") if UNFINISHED.fullmatch(e.name)]


def foreign_to_contest(path: Path) -> str | None:
    """Why a path is not just the folder of a contest, in words; None if it is."""
    try:
        if json.loads((path / MARKER).read_text())["format"] != FORMAT:
            return f"holds a {MARKER} of something else"
    except (OSError, ValueError, TypeError, KeyError):
        return foreign_names(path, ())
    for entry in (path / DONE).glob("*"):
        if not (entry.is_file() and (entry.suffix in DONE_FILES or is_leftover(entry.name))):
            return f"holds {DONE}/{entry.name}"
    results = results_of(path)
    for run in (entry for entry in results if RUN.fullmatch(entry.name)):
        if (found := foreign_to_run(run) if run.is_dir() else "is a file") is not None:
            return f"holds {run.name}, which {found}"
    return foreign_names(path, (MARKER, DONE, *(entry.name for entry in results)))


def check_not_taken(config: ContestConfig) -> None:
    """Raise UserError for a folder that the contest may neither resume nor replace."""
    path = Path(config.out)
    check_not_both(path, "a contest", config.resume, config.overwrite)
    check_replaceable(path, "contest", foreign_to_contest, overwrite=True)
    if (path / MARKER).exists() and not (config.overwrite or config.resume):
        raise UserError(
            f"{path}: holds a contest; pass --resume to continue it or to add methods or seeds, or "
            "--overwrite to start over"
        )
