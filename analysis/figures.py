"""Every plot. Functions take frames and arrays and return matplotlib figures; nothing is written here."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.tables import PHASE_1

LABELLED_CLASSES = 20  # more class names than this would overlap


def class_accuracy_figure(per_class: pd.DataFrame, phase1: list[str], configurations: list[str]) -> Figure:
    """Training images of every class as bars, accuracy before and after as lines.

    Args:
        per_class: class_name, n_train, and columns of accuracies.
        phase1: the columns of Phase I, drawn dashed.
        configurations: the columns to draw beside them.
    """
    ordered = per_class.sort_values("n_train", ascending=False, kind="stable")
    position = np.arange(len(ordered))
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    sizes = figure.subplots()
    sizes.bar(position, ordered["n_train"], color="0.85")
    sizes.set(yscale="log", ylabel="training images (bars)", xlabel="class, largest first")
    accuracy = sizes.twinx()
    for name in (*phase1, *configurations):
        style = {"color": "0.3", "linestyle": "--"} if name in phase1 else {}
        accuracy.plot(position, ordered[name], marker="o", markersize=4, label=_literal(name), **style)
    accuracy.set(ylabel="test accuracy, %", ylim=(0, 103))
    accuracy.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, frameon=False, fontsize="small")
    _name_classes(sizes, ordered["class_name"].tolist(), "x")
    return figure


def confusion_figure(before: np.ndarray, after: np.ndarray, class_names: list[str], name: str) -> Figure:
    """Phase I's confusion matrix and its change (paper, Fig. 7).

    Args:
        before, after: (K, K), row = true class, each row in per cent of its class's test images.
        class_names: K names in the order of the rows, largest class first.
        name: of the configuration.
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    change = after - before
    bound = max(1.0, float(np.nanmax(np.abs(change))))
    for axes, matrix, title, colours in (
        (left, before, PHASE_1, {"cmap": "Blues", "vmin": 0, "vmax": 100}),
        (right, change, f"change by {_literal(name)}", {"cmap": "RdBu", "vmin": -bound, "vmax": bound}),
    ):
        image = axes.imshow(matrix, **colours)
        axes.set(title=title, xlabel="predicted", ylabel="true, largest class first")
        _name_classes(axes, class_names, "x")
        _name_classes(axes, class_names, "y")
        figure.colorbar(image, ax=axes, label="% of the true class's images", shrink=0.8)
    return figure


def learning_curve_figure(curves: dict[str, list[pd.DataFrame]]) -> Figure:
    """Accuracy in the course of fine-tuning: the mean over seeds and their range (paper, Fig. 6).

    It is that of the split that choices were allowed to look at; without one, the training loss is drawn.

    Args:
        curves: metrics frames (iteration, loss and perhaps val_overall or test_overall) of the runs of each
            configuration.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    column, label = _curve(curves)
    for name, runs in curves.items():
        values = pd.concat([run.set_index("iteration")[column] for run in runs], axis=1).sort_index()
        values = values.interpolate(method="index")  # runs may have been looked at after other iterations
        (line,) = axes.plot(values.index, values.mean(axis=1), label=_literal(name))
        axes.fill_between(
            values.index, values.min(axis=1), values.max(axis=1), color=line.get_color(), alpha=0.2
        )
    axes.set(xlabel="iteration of Phase II", ylabel=label)
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    return figure


def _curve(curves: dict[str, list[pd.DataFrame]]) -> tuple[str, str]:
    """The column that all runs have, and what it is called."""
    runs = [run for of_one in curves.values() for run in of_one]
    for split, called in (("val", "validation"), ("test", "test")):
        if all(f"{split}_overall" in run for run in runs):
            return f"{split}_overall", f"{called} accuracy, %"
    return "loss", "training loss, mean since the point before"


def _name_classes(axes: Axes, class_names: list[str], axis: str) -> None:
    if len(class_names) > LABELLED_CLASSES:
        return
    turned = {"rotation": 45, "ha": "right"} if axis == "x" else {}
    labels = [_literal(name) for name in class_names]
    getattr(axes, f"set_{axis}ticks")(np.arange(len(labels)), labels, **turned)


def _literal(text: str) -> str:
    """Text that matplotlib shows as it is: dollars would set formulas."""
    return text.replace("$", r"\$")
