"""CSV files that give back every text that was written, whatever characters are in it."""

import csv
from pathlib import Path

import pandas as pd

TEXTS = ("class_name", "image")  # columns that are text even where they look like numbers


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV.

    Texts are quoted where they must be; all of them are where one holds a carriage return, which writers
    leave bare and readers take for the end of a line.
    """
    texts = frame.select_dtypes(["object", "string"])
    returns = any(texts[name].astype(str).str.contains("\r", regex=False).any() for name in texts)
    return frame.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame, in UTF-8; lines end in a line feed, on every system."""
    path.write_bytes(csv_text(frame).encode())


def read_csv(path: Path) -> pd.DataFrame:
    """Read what `write_csv` wrote.

    A class may be called 007 or None, which is neither a number nor an absent value.
    """
    return pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=[""])
