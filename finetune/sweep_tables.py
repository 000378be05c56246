"""The tables that a finished sweep leaves."""

from pathlib import Path

import pandas as pd

from analysis.csv_files import write_csv
from store.atomic import whole_file

RESULTS = ("results.csv", "results.parquet", "ranking.csv")


def write_tables(path: Path, results: pd.DataFrame, ranking: pd.DataFrame) -> None:
    """Write a row a head, twice, and a row a configuration.

    Args:
        path: the sweep's folder.
        results: a row a head.
        ranking: a row a configuration, best first.
    """
    with whole_file(path / RESULTS[0]) as unfinished:
        write_csv(results, unfinished)
    with whole_file(path / RESULTS[1]) as unfinished:
        _of_one_kind(results).to_parquet(unfinished, index=False)
    with whole_file(path / RESULTS[2]) as unfinished:
        write_csv(ranking, unfinished)


def _of_one_kind(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of numbers and words as text, for Parquet has one kind a column."""
    mixed = [name for name in frame if frame[name].dropna().map(type).nunique() > 1]
    return frame.assign(**{name: frame[name].map(str, na_action="ignore") for name in mixed})
