"""What figures share: names as people gave them, plain numbers on logarithmic axes, room for many classes."""

from functools import lru_cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, NullLocator

MOST_NAMED = 60  # classes, each with its name; beyond, they are drawn in groups
MOST_CONFIGURATIONS = 10  # as many colours as can be told apart
LONGEST_NAME = 24  # characters of a class on an axis
LONGEST_CONFIGURATION = 70  # characters in a legend
OTHER_SCRIPTS = (  # drawn where matplotlib's own font has no glyph, as far as the machine has them
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans",
    "Source Han Sans",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
)


def label_of(name: str, longest: int = LONGEST_NAME) -> str:
    """A name on one line as matplotlib shows it literally, long ones without their middle.

    Dollars would set formulas, line breaks and other controls would tear labels apart.
    """
    line = "".join(c if c.isprintable() else " " for c in name).strip()
    if len(line) > longest:
        line = f"{line[: longest - longest // 3 - 1]}…{line[-(longest // 3) :]}"
    return line.replace("$", r"\$")


@lru_cache
def _families() -> list[str]:
    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in installed)]


def use_fonts(figure: Figure) -> Figure:
    """Let all text fall back on fonts of other scripts; the same figure."""
    for text in figure.findobj(Text):
        text.set_fontfamily(_families())
    return figure


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers within a range of positive numbers, few enough to be read and at least one."""
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
    """A logarithmic y axis for counts, labelled 100 and 1,000; a count of 0 has no height on it."""
    positive = counts[counts > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (1, 10)
    axes.set(yscale="log", ylim=(low / 1.6, high * 1.25))
    ticks = log_ticks(low, high)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.set_yticklabels([f"{tick:,.0f}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def name_ticks(axes: Axes, names: list[str], axis: str) -> None:
    """A tick for each name, at 0, 1, 2, …; smaller letters the more there are."""
    labels = [label_of(name) for name in names]
    turned = {"rotation": 90} if axis == "x" and max(map(len, labels)) > 2 else {}
    size = 9 if len(names) <= 20 else 7 if len(names) <= 40 else 5.5
    getattr(axes, f"set_{axis}ticks")(np.arange(len(names)), labels, fontsize=size, **turned)
