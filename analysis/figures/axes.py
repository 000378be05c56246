"""Shared by axes: plain numbers on logarithmic scales, and room for many names."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, NullLocator

MOST_NAMED = 60  # most classes drawn by name; more are drawn in groups
MOST_CONFIGURATIONS = 10  # most configurations drawn: more colours cannot be distinguished


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers in a positive range, at least one and few enough to read."""
    decades = [10.0**k for k in range(int(np.ceil(np.log10(low))), int(np.floor(np.log10(high))) + 1)]
    if len(decades) >= 3:
        return decades[:: -(-len(decades) // 7)]
    first = int(np.floor(np.log10(low)))
    steps = [m * 10.0**k for k in range(first, first + 3) for m in (1, 2, 5)]
    ticks = [tick for tick in steps if low <= tick <= high]
    if len(ticks) > 6:
        return decades
    if len(ticks) < 3:
        even = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=True).tick_values(low, high)
        ticks = [tick for tick in even if low <= tick <= high and tick > 0]
    return ticks or [float(low)]


def use_log_counts(axes: Axes, counts: np.ndarray) -> None:
    """Make the y axis logarithmic, for counts, with labels like 1,000; a count of 0 has no height."""
    positive = counts[counts > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (1, 10)
    axes.set(yscale="log", ylim=(low / 1.6, high * 1.25))
    ticks = log_ticks(low, high)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.set_yticklabels([f"{tick:,.0f}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def name_ticks(axes: Axes, labels: list[str], axis: str) -> None:
    """Set a tick for each label, at 0, 1, 2, …; the more labels, the smaller the font."""
    turned = {"rotation": 90} if axis == "x" and max(map(len, labels)) > 2 else {}
    size = 9 if len(labels) <= 20 else 7 if len(labels) <= 40 else 5.5
    getattr(axes, f"set_{axis}ticks")(np.arange(len(labels)), labels, fontsize=size, **turned)
