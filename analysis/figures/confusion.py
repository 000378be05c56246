"""Confusion figures (paper, Fig. 7): which classes are confused, and what Phase II changes."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.axes import name_ticks
from analysis.figures.fonts import use_fonts
from analysis.figures.labels import label_of, labels_of
from analysis.tables import PHASE_1

N_PAIRS = 12  # pairs to draw


def confusion_figure(before: np.ndarray, after: np.ndarray, class_names: list[str], name: str) -> Figure:
    """Phase I's confusion matrix and its change, by class.

    Args:
        before, after: (K, K), row = true class, in % of the class's test images.
        class_names: K names in the order of the rows, most training images first.
        name: name of the configuration.
    """
    side = max(5.0, 2 + 0.13 * len(class_names))
    figure = Figure(figsize=(2 * side + 1, side), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_matrices(figure, (left, right), before, after, labels_of(class_names), name)
    for axes in (left, right):
        axes.set(xlabel="predicted", ylabel="true, most training images first")
    return use_fonts(figure)


def grouped_confusion_figure(
    before: np.ndarray,
    after: np.ndarray,
    labels: list[str],
    pairs: pd.DataFrame,
    class_names: list[str],
    name: str,
) -> Figure:
    """Wrong predictions among groups of classes, their change, and the most confused pairs by name.

    Args:
        before, after: (G, G), row = true group, wrong predictions in % of its test images.
        labels: training counts of each group.
        pairs: frame from `analysis.confusion.with_names`.
        class_names: K names by class id.
        name: name of the configuration.
    """
    figure = Figure(figsize=(17, 5.5), layout="constrained")
    left, right, aside = figure.subplots(1, 3, width_ratios=[1, 1, 0.8])
    _draw_matrices(figure, (left, right), before, after, labels, name)
    left.set_title(f"wrong predictions, {PHASE_1}")
    for axes in (left, right):
        axes.set(xlabel="predicted class's training images", ylabel="true class's training images")
    _draw_pairs(aside, pairs.head(N_PAIRS), labels_of(class_names, 20), name)
    return use_fonts(figure)


def _draw_matrices(
    figure: Figure,
    panels: tuple[Axes, Axes],
    before: np.ndarray,
    after: np.ndarray,
    labels: list[str],
    name: str,
) -> None:
    change = after - before
    bound = max(1.0, float(np.abs(change).max()))
    blue = {"cmap": "Blues", "vmin": 0, "vmax": max(1.0, float(before.max()))}
    red_and_blue = {"cmap": "RdBu", "vmin": -bound, "vmax": bound}
    for axes, matrix, title, colours in (
        (panels[0], before, PHASE_1, blue),
        (panels[1], change, f"change by {label_of(name, 40)}", red_and_blue),
    ):
        image = axes.imshow(matrix, **colours)
        axes.set_title(title)
        name_ticks(axes, labels, "x")
        name_ticks(axes, labels, "y")
        figure.colorbar(image, ax=axes, label="% of the row's test images", shrink=0.8)


def _draw_pairs(axes: Axes, pairs: pd.DataFrame, of_class: list[str], name: str) -> None:
    """Draw the images of each pair before and after, joined by a line, the most confused at the top."""
    y = -np.arange(len(pairs))
    before, after = pairs["count_before"].to_numpy(), pairs["count_after"].to_numpy()
    axes.hlines(y, np.minimum(before, after), np.maximum(before, after), color="0.7")
    axes.plot(before, y, "D", color="0.45", markerfacecolor="none", label=PHASE_1)
    axes.plot(after, y, "o", color="C0", label=label_of(name, 40))
    ids = zip(pairs["true_id"], pairs["predicted_id"], strict=True)
    names = [f"{of_class[true]} → {of_class[predicted]}" for true, predicted in ids]
    axes.set_yticks(y, names, fontsize=7)
    axes.set_title("most confused, true → predicted", loc="right", fontsize="medium")
    axes.set_xlim(left=0)
    axes.set_xlabel("test images, mean over runs")
    axes.legend(fontsize="small", loc="upper right", bbox_to_anchor=(1, -0.1), ncols=2, frameon=False)
