"""The tables that a finished sweep leaves."""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.csv_files import write_csv
from finetune.sweep.taken import RESULTS
from store.storage.atomic import whole_file

OF_ROW = {"head", "kept_iteration", "diverged_at", "seconds"}


def results_frame(named: list[tuple[str, str, dict[str, Any]]], rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A row a head: its configuration's name, its options, and what it came to.

    An accuracy that an earlier program did not tell of its heads is left out for all.

    Args:
        named: of each head its id, its configuration's name, and its options; in the order of the rows.
        rows: what heads came to.
    """
    whole = [row.keys() for row in rows if row["diverged_at"] is None]
    told = set.intersection(*map(set, whole)) if whole else OF_ROW
    of_head = {row["head"]: {k: v for k, v in row.items() if k in told} for row in rows}
    frame = pd.DataFrame(
        [{"configuration": name} | own | of_head[head] for head, name, own in named if head in of_head]
    )
    return frame.astype({name: float for name in frame if frame[name].isna().all()})


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
