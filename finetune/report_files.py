"""The folder of a report: its files written whole, and nobody else's replaced."""

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.csv_files import csv_text
from analysis.tables import without_nan
from store.atomic import whole_file, write_json
from store.errors import UserError

MARKER, FORMAT = "analysis.json", "tailcache-analysis"  # tell a folder of ours from others
DOTS_PER_INCH = 150


def refuse_foreign_files(out: Path, names: Iterable[str]) -> None:
    """Raise UserError for a folder of something else, or files of the report's names that are not ours."""
    for name, what in (("checkpoint.pt", "a run"), ("sweep.json", "a sweep"), ("zarr.json", "a store")):
        if (out / name).exists():
            raise UserError(f"{out}: is the folder of {what}; name another --out")
    if _is_report(out / MARKER):
        return
    for name in (MARKER, *names):
        if (out / name).exists():
            raise UserError(f"{out / name}: exists and was not written by `analyze`; name another --out")


def _is_report(path: Path) -> bool:
    try:
        return json.loads(path.read_text())["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_report(
    out: Path,
    content: dict[str, Any],
    frames: dict[str, pd.DataFrame],
    figures: dict[str, Figure],
    stale: Iterable[str],
) -> list[Path]:
    """Write analysis.json, tables and figures, and remove those that an earlier report left.

    Args:
        out: the folder.
        content: of analysis.json.
        frames, figures: by name, without suffix.
        stale: names of files that an earlier report may have left.

    Returns:
        What was written.
    """
    files = {f"{name}.csv": csv_text(frame).encode() for name, frame in frames.items()}
    files |= {f"{name}.png": _png(figure) for name, figure in figures.items()}
    write_json(out / MARKER, without_nan({"format": FORMAT} | content))  # first: the rest is known for ours
    for name in set(stale) - files.keys():
        (out / name).unlink(missing_ok=True)
    for name, data in files.items():
        with whole_file(out / name) as unfinished:
            unfinished.write_bytes(data)
    return [*(out / name for name in files), out / MARKER]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()
