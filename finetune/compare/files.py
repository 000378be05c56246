"""The folder of a report: its files written whole, and nobody else's replaced."""

import io
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.csv_files import csv_text
from analysis.tables import without_nan
from finetune.compare.folder import FORMAT, MARKER, OF_RUNS, OF_SWEEPS
from store.storage.atomic import whole_file, write_json

DOTS_PER_INCH = 150


def write_report(
    out: Path,
    content: dict[str, Any],
    frames: dict[str, pd.DataFrame],
    figures: dict[str, Figure],
) -> list[Path]:
    """Write analysis.json, tables and figures, and remove those that an earlier report left.

    Args:
        out: the folder.
        content: of analysis.json.
        frames, figures: by name, without suffix.

    Returns:
        What was written.
    """
    files = {f"{name}.csv": csv_text(frame).encode() for name, frame in frames.items()}
    files |= {f"{name}.png": _png(figure) for name, figure in figures.items()}
    write_json(out / MARKER, without_nan({"format": FORMAT} | content))  # first: the rest is known for ours
    for name in {*OF_RUNS, *OF_SWEEPS} - files.keys():
        (out / name).unlink(missing_ok=True)
    for name, data in files.items():
        with whole_file(out / name) as unfinished:
            unfinished.write_bytes(data)
    return [*(out / name for name in files), out / MARKER]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()
