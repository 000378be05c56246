"""The tables of a finished sweep."""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.csv_files import write_csv
from finetune.sweep.taken import RESULTS
from store.storage.atomic import whole_file

ROW_COLUMNS = {"head", "kept_iteration", "diverged_at", "seconds"}  # every row of a head has these


def results_frame(named: list[tuple[str, str, dict[str, Any]]], rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One row per head: its configuration's name, its options and its results.

    An accuracy that heads of an older version lack is left out for all.

    Args:
        named: id, configuration name and options of each head, in the order of the rows.
        rows: results of the heads.
    """
    whole = [row.keys() for row in rows if row["diverged_at"] is None]
    common = set.intersection(*map(set, whole)) if whole else ROW_COLUMNS
    of_head = {row["head"]: {k: v for k, v in row.items() if k in common} for row in rows}
    frame = pd.DataFrame(
        [{"configuration": name} | own | of_head[head] for head, name, own in named if head in of_head]
    )
    return frame.astype({name: float for name in frame if frame[name].isna().all()})


def write_tables(path: Path, results: pd.DataFrame, ranking: pd.DataFrame) -> None:
    """Write results.csv, results.parquet and ranking.csv.

    Args:
        path: folder of the sweep.
        results: one row per head.
        ranking: one row per configuration, best first.
    """
    with whole_file(path / RESULTS[0]) as unfinished:
        write_csv(results, unfinished)
    with whole_file(path / RESULTS[1]) as unfinished:
        _of_one_kind(results).to_parquet(unfinished, index=False)
    with whole_file(path / RESULTS[2]) as unfinished:
        write_csv(ranking, unfinished)


def _of_one_kind(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns that mix numbers and words, as text: Parquet has one type per column."""
    mixed = [name for name in frame if frame[name].dropna().map(type).nunique() > 1]
    return frame.assign(**{name: frame[name].map(str, na_action="ignore") for name in mixed})
