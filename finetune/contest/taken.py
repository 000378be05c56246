"""Whether a contest's folder is taken: checks of what lies there, made before heavy imports."""

import json
import re
from pathlib import Path

from finetune.contest.config import ContestConfig
from store.storage.atomic import check_not_both, check_replaceable, foreign_names, is_leftover

FORMAT, MARKER, DONE = "tailcache-contest", "contest.json", "done"
TABLES = ("standings.csv", "heads.csv")
BEST = "best"


def best_runs(path: Path, n_stores: int) -> list[Path]:
    """The folders of the winner's runs, one for each store."""
    return [path / BEST] if n_stores == 1 else [path / f"{BEST}-{i + 1}" for i in range(n_stores)]


def foreign_to_contest(path: Path) -> str | None:
    """Why a path is not just the folder of a contest, in words; None if it is."""
    try:
        if json.loads((path / MARKER).read_text())["format"] != FORMAT:
            return f"holds a {MARKER} of something else"
    except (OSError, ValueError, TypeError, KeyError):
        return foreign_names(path, ())
    runs = [entry.name for entry in path.iterdir() if re.fullmatch(rf"{BEST}(-\d+)?", entry.name)]
    done = path / DONE
    strange = [e.name for e in done.glob("*") if not (e.suffix == ".json" or is_leftover(e.name))]
    return f"holds {DONE}/{strange[0]}" if strange else foreign_names(path, (MARKER, DONE, *TABLES, *runs))


def check_not_taken(config: ContestConfig) -> None:
    """Raise UserError for a folder that the contest may neither resume nor replace."""
    path = Path(config.out)
    check_not_both(path, "a contest", config.resume, config.overwrite)
    check_replaceable(path, "contest", foreign_to_contest, config.overwrite or config.resume)
