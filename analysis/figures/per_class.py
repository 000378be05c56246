"""Figures of accuracy by class and over the iterations."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.bins import bin_labels, count_bins
from analysis.figures.axes import (
    MOST_CONFIGURATIONS,
    MOST_NAMED,
    name_ticks,
    use_log_counts,
)
from analysis.figures.fonts import use_fonts
from analysis.figures.labels import LONGEST_CONFIGURATION, label_of, labels_of

N_EXTREMES = 6  # gains, and as many losses, shown by name if classes are drawn in groups
BEFORE = {"color": "0.45", "marker": "D", "markerfacecolor": "none"}  # style of Phase I


def class_accuracy_figure(per_class: pd.DataFrame, changes: pd.DataFrame, phase1: list[str]) -> Figure:
    """Training images, accuracy and its change from Phase I, by class, most training images first.

    Up to MOST_NAMED classes are points with names; more are drawn in groups of similar training counts: the
    mean over a group, a line over the middle half of its classes, and the largest changes by name.

    Args:
        per_class: one row per class: class_name, n_train, and a column of accuracies in % for each
            configuration of Phase I and II; NaN without test images.
        changes: one row per class, one column per configuration of Phase II: change from Phase I.
        phase1: columns of Phase I.
    """
    counts = per_class["n_train"].to_numpy()
    names = np.array(labels_of(per_class["class_name"]), dtype=object)
    named = len(per_class) <= MOST_NAMED
    order = np.argsort(-counts, kind="stable")
    groups = [order[[i]] for i in range(len(order))] if named else count_bins(counts)
    width = max(7.0, 3 + 0.17 * len(groups)) if named else 13
    figure = Figure(figsize=(width, 7.5), layout="constrained")
    heights = {"height_ratios": [1.2, 3, 2]}
    if named:
        sizes, accuracy, change = figure.subplots(3, 1, sharex=True, gridspec_kw=heights)
    else:
        grid = figure.subplots(3, 2, sharex="col", gridspec_kw=heights | {"width_ratios": [3, 1]})
        sizes, accuracy, change = grid[:, 0]
        _draw_extremes(_merged(figure, grid[:, 1]), names, counts, changes)
    means = np.array([counts[members].mean() for members in groups])
    sizes.bar(np.arange(len(groups)), means, color="0.8")
    use_log_counts(sizes, means)
    sizes.set_ylabel("training\nimages")
    columns = [*phase1[:MOST_CONFIGURATIONS], *changes.columns[:MOST_CONFIGURATIONS]]
    _draw_points(accuracy, per_class[columns], groups, phase1)
    accuracy.set(ylabel="test accuracy, %", ylim=(-4, 104))
    change.axhline(0, color="0.45", linewidth=0.8)
    _draw_points(change, changes[list(columns[len(phase1[:MOST_CONFIGURATIONS]) :])], groups, [])
    change.set_ylabel("change from Phase I,\npoints")
    if named:
        name_ticks(change, names[order].tolist(), "x")
        change.set_xlabel("class, most training images first")
    else:
        name_ticks(change, bin_labels(counts, groups), "x")
        ends = [f"{names[i]} ({counts[i]:,})" for i in order[[0, -1]]]
        change.set_xlabel(
            f"training images of a class; mean and middle half of about {len(counts) // len(groups):,} "
            f"classes each\nfrom {ends[0]} to {ends[1]}"
        )
    _add_legend(figure, accuracy, len(changes.columns))
    return use_fonts(figure)


def _merged(figure: Figure, column: np.ndarray) -> Axes:
    """Replace a column of axes by a single one."""
    grid = column[0].get_gridspec()
    for axes in column:
        axes.remove()
    return figure.add_subplot(grid[:, 1])


def _draw_points(axes: Axes, values: pd.DataFrame, groups: list[np.ndarray], phase1: list[str]) -> None:
    """Draw a point for each group and column, columns side by side; a line over a group's middle half."""
    position = np.arange(len(groups))
    step = min(0.16, 0.7 / values.shape[1])
    colour = 0
    labels = labels_of(values, LONGEST_CONFIGURATION)
    for number, (name, label) in enumerate(zip(values, labels, strict=True)):
        style: dict[str, Any] = BEFORE if name in phase1 else {"color": f"C{colour}", "marker": "o"}
        colour += name not in phase1
        x = position + step * (number - (values.shape[1] - 1) / 2)
        of_group = [values[name].iloc[members] for members in groups]
        means = [part.mean() for part in of_group]
        axes.plot(x, means, linestyle="", markersize=4, label=label, **style)
        if any(len(members) > 1 for members in groups):
            low, high = ([part.quantile(q) for part in of_group] for q in (0.25, 0.75))
            axes.vlines(x, low, high, color=style["color"], linewidth=1, alpha=0.6)
    axes.grid(axis="y", alpha=0.3)
    axes.set_xlim(-0.7, len(groups) - 0.3)


def _draw_extremes(axes: Axes, names: np.ndarray, counts: np.ndarray, changes: pd.DataFrame) -> None:
    """Draw the largest gains and losses of the first configuration, with class labels."""
    change = changes.iloc[:, 0].dropna().sort_values(ascending=False, kind="stable")
    ends = pd.concat([change[change > 0].head(N_EXTREMES), change[change < 0].tail(N_EXTREMES)])
    labels = [f"{names[i]} ({counts[i]:,})" for i in ends.index]
    y = -np.arange(len(ends))
    axes.barh(y, ends, color=np.where(ends > 0, "C0", "C3"), height=0.6)
    axes.set_yticks(y, labels, fontsize=7)
    axes.axvline(0, color="0.45", linewidth=0.8)
    axes.set_xlabel("points")
    name = label_of(str(changes.columns[0]), 30)
    axes.set_title(f"largest changes, {name}\n(training images)", fontsize=9)


def _add_legend(figure: Figure, axes: Axes, n_configurations: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(4, int(110 / (4 + max(map(len, labels))))))
    title = None
    if n_configurations > MOST_CONFIGURATIONS:
        title = f"the first {MOST_CONFIGURATIONS} of {n_configurations} configurations"
    place = {"loc": "outside upper center", "ncols": columns, "frameon": False}
    figure.legend(handles, labels, fontsize="small", title=title, **place)


def learning_curve_figure(curves: dict[str, list[pd.DataFrame]]) -> Figure:
    """Accuracy during fine-tuning: mean over seeds and their range (paper, Fig. 6).

    Shows the split that choices were made on; without one, the training loss.

    Args:
        curves: metrics frames of the runs of each configuration: iteration, loss, and perhaps
            val_balanced_accuracy, val_overall or the same of cv or test.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    column, label = _curve(curves)
    labels = labels_of(curves, LONGEST_CONFIGURATION)
    for shown, runs in list(zip(labels, curves.values(), strict=True))[:MOST_CONFIGURATIONS]:
        values = pd.concat([run.set_index("iteration")[column] for run in runs], axis=1).sort_index()
        values = values.interpolate(method="index")  # runs may have been evaluated at other iterations
        style = {"marker": "o"} if len(values) == 1 else {}  # post-hoc heads have one row
        (line,) = axes.plot(values.index, values.mean(axis=1), label=shown, **style)
        axes.fill_between(
            values.index, values.min(axis=1), values.max(axis=1), color=line.get_color(), alpha=0.2
        )
    axes.set(xlabel="iteration of Phase II", ylabel=label)
    _add_legend(figure, axes, len(curves))
    axes.grid(alpha=0.3)
    return use_fonts(figure)


def _curve(curves: dict[str, list[pd.DataFrame]]) -> tuple[str, str]:
    """The column that all runs have, and its axis label."""
    runs = [run for of_one in curves.values() for run in of_one]
    for split, called in (("val", "validation"), ("cv", "cross-validation"), ("test", "test")):
        for score, meaning in (("balanced_accuracy", "balanced accuracy"), ("overall", "accuracy")):
            if all(f"{split}_{score}" in run for run in runs):
                return f"{split}_{score}", f"{called} {meaning}, %"
    return "loss", "training loss, mean since the previous point"
