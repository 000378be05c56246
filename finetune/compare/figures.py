"""Figures of a report, from its runs."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.bins import bin_labels, count_bins
from analysis.confusion import group_confusion
from analysis.figures.axes import MOST_NAMED
from analysis.figures.confusion import confusion_figure, grouped_confusion_figure
from analysis.figures.fonts import undrawable
from analysis.figures.per_class import class_accuracy_figure, learning_curve_figure
from finetune.compare.folder import FIGURES
from finetune.run import Run
from store.names import shown
from store.notes import note


def report_figures(
    members: dict[str, list[Run]],
    per_class: pd.DataFrame,
    changes: pd.DataFrame,
    phase1: list[str],
    pairs: pd.DataFrame,
) -> dict[str, Figure]:
    """Every figure by name.

    Args:
        members: runs of each configuration; the confusion figure shows the first configuration.
        per_class: class_name, n_train and accuracies by configuration.
        changes: changes from Phase I by configuration of Phase II.
        phase1: columns of Phase I.
        pairs: the first configuration's most confused pairs, from `analysis.confusion.with_names`.
    """
    _note_undrawable(per_class["class_name"].tolist())
    figures = (
        class_accuracy_figure(per_class, changes, phase1),
        _confusion(next(iter(members.items())), per_class, pairs),
        learning_curve_figure({name: [run.metrics for run in runs] for name, runs in members.items()}),
    )
    return dict(zip(FIGURES, figures, strict=True))


def _confusion(configuration: tuple[str, list[Run]], per_class: pd.DataFrame, pairs: pd.DataFrame) -> Figure:
    name, runs = configuration
    counts = per_class["n_train"].to_numpy()
    names = per_class["class_name"].to_numpy()
    order = np.argsort(-counts, kind="stable")
    if len(counts) <= MOST_NAMED:
        before, after = _matrices(runs, list(order[:, None]), errors_only=False)
        return confusion_figure(before, after, names[order].tolist(), name)
    bins = count_bins(counts)
    before, after = _matrices(runs, bins, errors_only=True)
    return grouped_confusion_figure(before, after, bin_labels(counts, bins), pairs, names.tolist(), name)


def _note_undrawable(class_names: list[str]) -> None:
    if without := undrawable(class_names):
        note(
            f"{len(without):,} of {len(class_names):,} class names have characters that no installed font "
            f"has, and figures show boxes instead ({shown(without[0])} is the first); install a font for the "
            "script (such as Noto Sans CJK for Chinese, Japanese and Korean) and analyze again"
        )


def _matrices(runs: list[Run], groups: list[np.ndarray], errors_only: bool) -> Any:
    group = np.empty(sum(map(len, groups)), np.int64)
    for number, members in enumerate(groups):
        group[members] = number
    label = runs[0].predictions["label"].to_numpy()
    for column in ("phase1", "prediction"):
        predictions = [run.predictions[column].to_numpy() for run in runs]
        yield group_confusion(label, predictions, group, errors_only)
