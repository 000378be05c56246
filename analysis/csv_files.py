"""CSV files that preserve every text, whatever characters it has."""

import csv
from pathlib import Path

import pandas as pd

TEXTS = ("class_name", "image")  # text columns, even if they look like numbers


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV.

    Texts are quoted if necessary, and all of them if one has a carriage return: pandas would not quote it,
    and readers would take it for the end of a line.
    """
    texts = frame.select_dtypes(["object", "string"])
    returns = any(texts[name].astype(str).str.contains("\r", regex=False).any() for name in texts)
    return frame.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as UTF-8; lines end with a line feed on every system."""
    path.write_bytes(csv_text(frame).encode())


def read_csv(path: Path) -> pd.DataFrame:
    """Read what `write_csv` wrote.

    A class called 007 or None stays text, neither a number nor a missing value.
    """
    return pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=[""])
