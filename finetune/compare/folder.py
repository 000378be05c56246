"""The folder of a report, told by its names and analysis.json: before anything heavy is imported."""

import json
import os
from pathlib import Path

from store.errors import UserError

MARKER, FORMAT = "analysis.json", "tailcache-analysis"  # tell a folder of ours from others
TABLES = ("summary", "runs", "per_class", "confused_pairs")
FIGURES = ("class_accuracy", "confusion", "learning_curve")
OF_RUNS = (*(f"{name}.csv" for name in TABLES), *(f"{name}.png" for name in FIGURES))
OF_SWEEPS = ("ranking.csv", "results.csv", "options.png")


def check_no_foreign_files(out: Path) -> None:
    """Raise UserError for a folder of something else, or files of the report's names that are not ours.

    A folder that holds other files may be given: the report's stand beside them.
    """
    if os.path.realpath(out) == Path(os.path.realpath(out)).anchor:
        raise UserError(f"{out}: is the root of the file system; name a folder for the report")
    for name, what in (("checkpoint.pt", "a run"), ("sweep.json", "a sweep"), ("zarr.json", "a store")):
        if (out / name).exists():
            raise UserError(f"{out}: is the folder of {what}; name another --out")
    if _is_report(out / MARKER):
        return
    for name in (MARKER, *OF_RUNS, *OF_SWEEPS):
        if (out / name).exists():
            raise UserError(f"{out / name}: exists and was not written by `analyze`; name another --out")


def _is_report(path: Path) -> bool:
    try:
        return json.loads(path.read_text())["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False
