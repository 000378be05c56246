"""The folder of a report: checks that need no heavy imports."""

import json
from pathlib import Path

from store.errors import UserError
from store.storage.atomic import check_not_root

MARKER, FORMAT = "analysis.json", "tailcache-analysis"  # mark a folder as ours
TABLES = ("summary", "runs", "per_class", "confused_pairs")
FIGURES = ("class_accuracy", "confusion", "learning_curve")
RUN_FILES = (*(f"{name}.csv" for name in TABLES), *(f"{name}.png" for name in FIGURES))
SWEEP_FILES = ("ranking.csv", "results.csv", "options.png")


def check_no_foreign_files(out: Path) -> None:
    """Raise UserError for the folder of something else, or with files that a report would replace.

    Other files may be in the folder; the report is written beside them.
    """
    check_not_root(out, "the report")
    for name, what in (("checkpoint.pt", "a run"), ("sweep.json", "a sweep"), ("zarr.json", "a store")):
        if (out / name).exists():
            raise UserError(f"{out}: is the folder of {what}; use another --out")
    if _is_report(out / MARKER):
        return
    for name in (MARKER, *RUN_FILES, *SWEEP_FILES):
        if (out / name).exists():
            raise UserError(f"{out / name}: exists and was not written by `analyze`; use another --out")


def _is_report(path: Path) -> bool:
    try:
        return json.loads(path.read_text())["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False
