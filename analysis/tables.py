"""Tables that compare runs: one row per configuration, mean ± std over its seeds, and Phase I."""

import io
import math
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.accuracy import MEASURES, in_words
from analysis.options import NOT_CONFIGURATION
from store.names import visible

COLUMNS = MEASURES
ALL_CLASSES = ("overall", "balanced_accuracy")  # columns over all classes
PHASE_1 = "Phase I"
WIDEST = 10_000  # characters, so that tables are never truncated


def name_configurations(options: list[dict[str, Any]]) -> list[str]:
    """A short name for each run's configuration: its method, and the options in which runs differ.

    Args:
        options: flat options of each run. Methods need not have the same ones; None is left out.

    Returns:
        Names such as "fsa" or "fsa, tail_draw=classes"; equal for equal configurations.
    """
    every = dict.fromkeys(name for run in options for name in run)
    names = [name for name in every if name not in NOT_CONFIGURATION and name != "method"]
    differing = [name for name in names if len({repr(run[name]) for run in options if name in run}) > 1]
    return [
        ", ".join([run["method"], *(f"{n}={run[n]}" for n in differing if run.get(n) is not None)])
        for run in options
    ]


def compare(runs: pd.DataFrame) -> pd.DataFrame:
    """Means, standard deviations and changes from Phase I, by configuration.

    Args:
        runs: one row per run: configuration, phase1_configuration, phase1 (identifies the Phase I network),
            and for each column of COLUMNS the run's accuracy and, as phase1_<column>, its Phase I's; also
            subset_seed where runs are of several long-tailed subsets.

    Returns:
        One row per configuration of Phase I (over its distinct networks), then one per configuration of Phase
        II: phase, configuration, n, and for every column <column>_mean, <column>_std (NaN for one run) and
        <column>_change, the mean difference from each run's own Phase I. With subset_seed, n_subsets too.
    """
    rows = []
    networks = runs.drop_duplicates("phase1")
    for name, group in networks.groupby("phase1_configuration", sort=False):
        values = {column: group[f"phase1_{column}"].to_numpy() for column in COLUMNS}
        counts = {"configuration": name} | _counts(group)
        rows.append({"phase": 1} | counts | _row(values, {column: np.zeros(1) for column in COLUMNS}))
    for name, group in runs.groupby("configuration", sort=False):
        values = {column: group[column].to_numpy() for column in COLUMNS}
        changes = {column: values[column] - group[f"phase1_{column}"].to_numpy() for column in COLUMNS}
        rows.append({"phase": 2, "configuration": name} | _counts(group) | _row(values, changes))
    return pd.DataFrame(rows)


def _counts(runs: pd.DataFrame) -> dict[str, int]:
    """Runs and, if they say of which, long-tailed subsets."""
    counts = {"n": len(runs)}
    return counts | {"n_subsets": runs["subset_seed"].nunique()} if "subset_seed" in runs else counts


def _row(values: dict[str, np.ndarray], changes: dict[str, np.ndarray]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for column in COLUMNS:
        row[f"{column}_mean"] = values[column].mean()
        row[f"{column}_std"] = values[column].std(ddof=1) if len(values[column]) > 1 else np.nan
        row[f"{column}_change"] = changes[column].mean()
    return row


def without_nan(content: Any) -> Any:
    """Replace NaN by None in nested lists and dictionaries, for JSON."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content


def format_cell(mean: float, std: float) -> str:
    """ "70.4 ± 0.1", "70.4" for a single run, "–" for an empty group."""
    if np.isnan(mean):
        return "–"
    return f"{mean:.1f}" if np.isnan(std) else f"{mean:.1f} ± {std:.1f}"


def format_change(change: float) -> str:
    """ "+4.5", or nothing for an empty group."""
    return "" if np.isnan(change) else f"{change:+.1f}"


def comparison_table(comparison: pd.DataFrame, n_classes: dict[str, int]) -> str:
    """The comparison for the screen, as wide as it needs; changes from Phase I under each configuration.

    Args:
        comparison: frame from `compare`.
        n_classes: number of classes in each shot group, head and tail.
    """
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column("test accuracy, %", no_wrap=True)
    counts = {"n": "runs"} | ({"n_subsets": "subsets"} if "n_subsets" in comparison else {})
    for title in counts.values():
        table.add_column(title, justify="right")
    for column in COLUMNS:
        size = "" if column in ALL_CLASSES else f" ({n_classes[column]})"
        table.add_column(in_words(column).capitalize() + size, no_wrap=True, justify="right")
    for row in comparison.to_dict("records"):
        cells = [format_cell(row[f"{column}_mean"], row[f"{column}_std"]) for column in COLUMNS]
        table.add_row(visible(row["configuration"]), *(str(row[name]) for name in counts), *cells)
        if row["phase"] == 2:
            changes = [format_change(row[f"{column}_change"]) for column in COLUMNS]
            table.add_row("  against Phase I", *("" for _ in counts), *changes)
    lines = io.StringIO()
    console = Console(file=lines, width=WIDEST, color_system=None, highlight=False, markup=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in lines.getvalue().splitlines())
