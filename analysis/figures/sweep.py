"""Figure of a sweep: accuracy by the options that it varied."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from analysis.figures.fonts import use_fonts
from analysis.figures.labels import labels_of

MOST_OPTIONS = 9  # most panels
MOST_VALUES = 8  # most values of a numeric option that get a tick each; more are drawn to scale


def options_figure(configurations: pd.DataFrame, varied: list[str], score: str, label: str) -> Figure:
    """One panel per option, one point per configuration: mean over seeds, with its standard deviation.

    Args:
        configurations: one row per configuration, the best first: its options (None if its method does not
            have the option), <score>_mean and <score>_std.
        varied: options to draw; only the first MOST_OPTIONS are.
        score: accuracy to draw.
        label: axis label.
    """
    drawn = varied[:MOST_OPTIONS]
    n_columns = min(3, len(drawn))
    n_rows = -(-len(drawn) // n_columns)
    figure = Figure(figsize=(1 + 4 * n_columns, 0.6 + 3.2 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
    mean, deviation = configurations[f"{score}_mean"], configurations[f"{score}_std"].fillna(0)
    for axes, name in zip(panels, drawn, strict=False):
        x = _place(axes, configurations[name])
        axes.errorbar(x, mean, deviation, fmt="o", markersize=4, alpha=0.7, elinewidth=0.8)
        axes.plot(x[:1], mean[:1], "o", markersize=11, markerfacecolor="none", color="C3", label="best")
        axes.set_xlabel(name)
        axes.grid(axis="y", alpha=0.3)
    for axes in panels[len(drawn) :]:
        axes.remove()
    panels[0].legend(fontsize="small")
    figure.supylabel(label)
    if len(varied) > len(drawn):
        figure.suptitle(f"the first {len(drawn)} of {len(varied)} options", fontsize="medium")
    return use_fonts(figure)


def _place(axes: Axes, values: pd.Series) -> np.ndarray:
    """Position of each value on the x axis, which is set up for it."""
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.notna().all() and numbers.nunique() > MOST_VALUES:
        if numbers.min() > 0 and (span := numbers.max() / numbers.min()) > 20:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1,) if span > 1000 else (1, 3)))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_locator(NullLocator())
        return numbers.to_numpy()
    known = [value for value in values.unique() if value == value and value is not None]
    if numbers.notna().sum() == values.notna().sum():
        known = sorted(known)
    names = [f"{value:g}" if isinstance(value, float) else str(value) for value in known]
    place = {value: number for number, value in enumerate(known)}
    without = int(values.isna().any())
    axes.set_xticks(range(len(known) + without), [*labels_of(names), *["none"] * without])
    axes.set_xlim(-0.5, len(known) + without - 0.5)
    if sum(map(len, names)) > 30:
        axes.tick_params(axis="x", rotation=30)
    return np.array([place.get(value, len(known)) for value in values])
