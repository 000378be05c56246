"""Write the files of a report."""

import io
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.csv_files import csv_text
from analysis.tables import without_nan
from finetune.compare.folder import FORMAT, MARKER, RUN_FILES, SWEEP_FILES
from store.storage.atomic import whole_file, write_json

DOTS_PER_INCH = 150


def write_report(
    out: Path,
    content: dict[str, Any],
    frames: dict[str, pd.DataFrame],
    figures: dict[str, Figure],
) -> list[Path]:
    """Write analysis.json, tables and figures, and remove those of an earlier report.

    Args:
        out: the folder.
        content: content of analysis.json.
        frames, figures: tables and figures by name, without suffix.

    Returns:
        The files that were written.
    """
    files = {f"{name}.csv": csv_text(frame).encode() for name, frame in frames.items()}
    files |= {f"{name}.png": _png(figure) for name, figure in figures.items()}
    write_json(out / MARKER, without_nan({"format": FORMAT} | content))  # first: it marks the rest as ours
    for name in {*RUN_FILES, *SWEEP_FILES} - files.keys():
        (out / name).unlink(missing_ok=True)
    for name, data in files.items():
        with whole_file(out / name) as unfinished:
            unfinished.write_bytes(data)
    return [*(out / name for name in files), out / MARKER]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()
