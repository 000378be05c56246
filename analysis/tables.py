"""Runs side by side: one row a configuration, mean ± std over its seeds, beside Phase I."""

from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

# Options that tell runs apart without making them different configurations.
NOT_CONFIGURATION = {"seed", "store", "out", "ckpt", "device", "overwrite", "eval_every", "shot_rule"}
COLUMNS = ("overall", "many", "medium", "few", "head", "tail")
PHASE_1 = "Phase I"


def name_configurations(options: list[dict[str, Any]]) -> list[str]:
    """A short name for the configuration of every run: its method, and options in which methods differ.

    Args:
        options: of each run, flat.

    Returns:
        Names such as "fsa" or "fsa, tail_draw=classes", equal where the configurations are.
    """
    names = [name for name in options[0] if name not in NOT_CONFIGURATION and name != "method"]
    differing = [name for name in names if len({repr(run.get(name)) for run in options}) > 1]
    return [", ".join([run["method"], *(f"{n}={run.get(n)}" for n in differing)]) for run in options]


def class_mean(frame: pd.DataFrame, class_ids: list[int]) -> float:
    """Unweighted mean accuracy of some classes of a per-class frame."""
    return float(frame["accuracy"].iloc[class_ids].mean())


def compare(runs: pd.DataFrame) -> pd.DataFrame:
    """Means, deviations and differences.

    Args:
        runs: a row a run: configuration, phase1 (identifies the Phase I network), and for each column of
            COLUMNS the run's accuracy and, as phase1_<column>, its Phase I's.

    Returns:
        A row for Phase I (over its distinct networks), then a row a configuration: configuration, n, and for
        every column <column>_mean, <column>_std (NaN for one run) and <column>_change, the mean difference
        from each run's own Phase I.
    """
    networks = runs.drop_duplicates("phase1")
    phase1 = {column: networks[f"phase1_{column}"].to_numpy() for column in COLUMNS}
    rows = [_row(PHASE_1, phase1, {column: np.zeros(1) for column in COLUMNS})]
    for name, group in runs.groupby("configuration", sort=False):
        values = {column: group[column].to_numpy() for column in COLUMNS}
        changes = {column: values[column] - group[f"phase1_{column}"].to_numpy() for column in COLUMNS}
        rows.append(_row(name, values, changes))
    return pd.DataFrame(rows)


def _row(name: str, values: dict[str, np.ndarray], changes: dict[str, np.ndarray]) -> dict[str, Any]:
    row: dict[str, Any] = {"configuration": name, "n": len(values["overall"])}
    for column in COLUMNS:
        row[f"{column}_mean"] = values[column].mean()
        row[f"{column}_std"] = values[column].std(ddof=1) if len(values[column]) > 1 else np.nan
        row[f"{column}_change"] = changes[column].mean()
    return row


def format_cell(mean: float, std: float) -> str:
    """ "70.4 ± 0.1", "70.4" for a single run, "–" for an empty group."""
    if np.isnan(mean):
        return "–"
    return f"{mean:.1f}" if np.isnan(std) else f"{mean:.1f} ± {std:.1f}"


def format_change(change: float) -> str:
    """ "+4.5", or nothing for an empty group."""
    return "" if np.isnan(change) else f"{change:+.1f}"


def comparison_table(comparison: pd.DataFrame, n_classes: dict[str, int]) -> Table:
    """The comparison for the screen: under each configuration its change from Phase I.

    Args:
        comparison: from `compare`.
        n_classes: number of classes in each of COLUMNS.
    """
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column("test accuracy, %", no_wrap=True)
    table.add_column("runs", justify="right")
    for column in COLUMNS:
        table.add_column(f"{column.capitalize()} ({n_classes[column]})", no_wrap=True, justify="right")
    for row in comparison.to_dict("records"):
        cells = [format_cell(row[f"{column}_mean"], row[f"{column}_std"]) for column in COLUMNS]
        table.add_row(row["configuration"], str(row["n"]), *cells)
        if row["configuration"] != PHASE_1:
            changes = [format_change(row[f"{column}_change"]) for column in COLUMNS]
            table.add_row("  change from Phase I", "", *changes)
    return table
