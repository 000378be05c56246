"""Figures: every class by name if names fit, otherwise groups of classes and the largest changes."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from analysis.figures.axes import MOST_CONFIGURATIONS, log_ticks
from analysis.figures.confusion import N_PAIRS, confusion_figure, grouped_confusion_figure
from analysis.figures.labels import label_of
from analysis.figures.per_class import N_EXTREMES, class_accuracy_figure, learning_curve_figure
from analysis.tables import PHASE_1
from finetune.compare.files import DOTS_PER_INCH

ODD = ["$_$", "$a", "猫と犬", "two\nlines", "x" * 80, "a\\$b", "\x1b[0m", "", "^_{", "e\u0301"]


def drawn(figure: Figure) -> Image.Image:
    """The figure as a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return Image.open(buffer)


def names_of(axes, axis: str = "x") -> list[str]:
    return [text.get_text() for text in getattr(axes, f"get_{axis}ticklabels")()]


def accuracies(n_classes: int, **columns) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A per-class frame, and changes by configuration."""
    counts = np.random.default_rng(0).permutation(np.geomspace(1000, 2, n_classes).astype(int))
    per_class = pd.DataFrame({"class_name": [f"c{i}" for i in range(n_classes)], "n_train": counts})
    per_class[PHASE_1] = np.linspace(90, 20, n_classes)
    rng = np.random.default_rng(1)
    changes = pd.DataFrame({name: rng.uniform(-9, 9, n_classes) for name in columns or ["fsa"]})
    return per_class.assign(**{name: per_class[PHASE_1] + changes[name] for name in changes}), changes


def test_class_accuracy_by_name_and_training_count():
    per_class = pd.DataFrame(
        {
            "class_name": ["small", "large", "middle"],
            "n_train": [5, 500, 50],
            PHASE_1: [10.0, 90.0, np.nan],
            "fsa": [60.0, 85.0, np.nan],
        }
    )
    changes = pd.DataFrame({"fsa": [50.0, -5.0, np.nan]})
    sizes, accuracy, change = class_accuracy_figure(per_class, changes, [PHASE_1]).axes
    assert [bar.get_height() for bar in sizes.patches] == [500, 50, 5]
    points = {line.get_label(): line for line in accuracy.lines}
    np.testing.assert_array_equal(points[PHASE_1].get_ydata(), [90, np.nan, 10])
    np.testing.assert_array_equal(points["fsa"].get_ydata(), [85, np.nan, 60])
    assert all(line.get_linestyle() == "None" for line in points.values())  # classes are not a continuum
    np.testing.assert_array_equal(change.lines[-1].get_ydata(), [-5, np.nan, 50])
    assert names_of(change) == ["large", "middle", "small"]


@pytest.mark.parametrize("n_classes", [10, 60])
def test_up_to_sixty_classes_all_have_names(n_classes):
    per_class, changes = accuracies(n_classes)
    figure = class_accuracy_figure(per_class, changes, [PHASE_1])
    ordered = per_class.sort_values("n_train", ascending=False, kind="stable")
    assert names_of(figure.axes[2]) == ordered["class_name"].tolist()
    matrix = np.eye(n_classes)
    for axis in "xy":
        axes = confusion_figure(matrix, matrix, ordered["class_name"].tolist(), "fsa").axes[0]
        assert names_of(axes, axis) == ordered["class_name"].tolist()


@pytest.mark.parametrize("n_classes", [61, 400, 8142])
def test_more_classes_are_groups_and_extremes(n_classes):
    """Their number does not grow with the classes; only the largest changes have names."""
    per_class, changes = accuracies(n_classes)
    sizes, accuracy, change, extremes = class_accuracy_figure(per_class, changes, [PHASE_1]).axes
    assert len(sizes.patches) <= 20
    before = next(line for line in accuracy.lines if line.get_label() == PHASE_1)
    assert len(before.get_ydata()) == len(sizes.patches)
    assert per_class[PHASE_1].min() < np.min(before.get_ydata())  # means of groups
    assert names_of(change)[0].startswith("1,000")
    order = changes["fsa"].sort_values(ascending=False, kind="stable").index
    ends = [*order[:N_EXTREMES], *order[-N_EXTREMES:]]
    expected = [f"{per_class['class_name'][i]} ({per_class['n_train'][i]:,})" for i in ends]
    assert names_of(extremes, "y") == expected
    largest = per_class["class_name"][per_class["n_train"].idxmax()]
    assert f"from {largest} (1,000) to" in change.get_xlabel()


def test_group_means_by_hand():
    """The mean of a group, and the middle half of it; equal counts are groups by class id."""
    per_class = pd.DataFrame({"class_name": "c", "n_train": [100] * 50 + [5] * 50, PHASE_1: 50.0})
    per_class["fsa"] = [*[60.0] * 50, *np.arange(50.0)]
    changes = pd.DataFrame({"fsa": per_class["fsa"] - 50})
    _, accuracy, change, _ = class_accuracy_figure(per_class, changes, [PHASE_1]).axes
    assert accuracy.lines[1].get_ydata().tolist() == [*[60] * 10, *np.arange(2, 50, 5)]
    assert change.lines[1].get_ydata().tolist() == [*[10] * 10, *np.arange(2, 50, 5) - 50]
    (_, low), (_, high) = accuracy.collections[1].get_segments()[10]
    assert (low, high) == (1, 3)
    assert names_of(change)[9:11] == ["100 (ids 45–49)", "5 (ids 50–54)"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (60, 90, [60, 70, 80, 90]),
        (7, 144, [10, 20, 50, 100]),
        (2, 1000, [10, 100, 1000]),
        (1, 10**6, [1, 10, 100, 1000, 10**4, 10**5, 10**6]),
        (2, 900, [10, 100]),
        (5, 5, [5]),
        (1, 2, [1, 2]),
        (99, 101, [99, 100, 101]),
        (4100, 4900, None),
    ],
)
def test_ticks_are_few_and_round(low, high, expected):
    ticks = log_ticks(low, high)
    assert ticks == (expected or ticks)
    assert 1 <= len(ticks) <= 8
    assert all(low <= tick <= high and tick == round(tick) for tick in ticks)


@pytest.mark.parametrize(("low", "high"), [(60, 90), (2, 1000), (5000, 5000), (0, 3)])
def test_log_axes_read_as_plain_numbers(low, high):
    per_class, changes = accuracies(10)
    per_class["n_train"] = np.linspace(low, high, 10).astype(int)
    figure = class_accuracy_figure(per_class, changes, [PHASE_1])
    figure.canvas.draw()
    labels = [text for text in names_of(figure.axes[0], "y") if text]
    assert labels
    assert all(label.replace(",", "").isdigit() for label in labels)  # never 6×10¹
    assert figure.axes[0].yaxis.get_minorticklocs().size == 0


@pytest.mark.filterwarnings("ignore:Glyph")
def test_odd_names_are_drawn_as_they_are():
    """No formula, no broken label, no error, in either figure; configurations may have such names too."""
    per_class, changes = accuracies(len(ODD), **{"$_$": 0})
    per_class["class_name"] = ODD
    figure = class_accuracy_figure(per_class, changes, [PHASE_1])
    assert drawn(figure).width < 1200
    assert all("\n" not in name and len(name) <= 30 for name in names_of(figure.axes[2]))
    matrix = np.eye(len(ODD))
    drawn(confusion_figure(matrix, matrix, ODD, "$_$"))
    many, changes = accuracies(70, **{"$_$": 0})
    many["class_name"] = [*ODD, *[f"{name} {i}" for i in range(6) for name in ODD]]
    drawn(class_accuracy_figure(many, changes, [PHASE_1]))
    assert label_of("$a") == r"\$a"
    assert label_of("x" * 80) != label_of("x" * 70 + "y" * 10)  # beginnings and ends are kept


def test_more_configurations_than_colours():
    columns = {f"fsa, tau={i}": 0 for i in range(14)}
    per_class, changes = accuracies(5, **columns)
    figure = class_accuracy_figure(per_class, changes, [PHASE_1])
    assert len(figure.axes[1].lines) == 1 + MOST_CONFIGURATIONS
    assert figure.legends[0].get_title().get_text() == "the first 10 of 14 configurations"


def test_confusion_figure_shows_before_and_change():
    before, after = np.array([[90.0, 10.0], [60.0, 40.0]]), np.array([[80.0, 20.0], [10.0, 90.0]])
    left, right, *_ = confusion_figure(before, after, ["a", "b"], "fsa").axes
    np.testing.assert_array_equal(left.images[0].get_array(), before)
    np.testing.assert_array_equal(right.images[0].get_array(), after - before)


def test_grouped_confusion_names_the_most_confused_pairs():
    pairs = pd.DataFrame(
        {
            "true_class": [f"t{i}" for i in range(30)],
            "predicted_class": [f"p{i}" for i in range(30)],
            "true_id": np.arange(30),
            "predicted_id": np.arange(30, 60),
            "count_before": np.arange(30.0)[::-1],
            "count_after": 3.0,
        }
    )
    before, after = np.array([[1.0, 2], [3, 4]]), np.ones((2, 2))
    names = [*pairs["true_class"], *pairs["predicted_class"]]
    groups = ["9–5", "4–1"]
    left, right, aside, *_ = grouped_confusion_figure(before, after, groups, pairs, names, "fsa").axes
    np.testing.assert_array_equal(right.images[0].get_array(), after - before)
    assert names_of(aside, "y") == [f"t{i} → p{i}" for i in range(N_PAIRS)]
    assert aside.lines[0].get_xdata().tolist() == list(range(29, 29 - N_PAIRS, -1))
    assert names_of(left, "y") == ["9–5", "4–1"]
    drawn(grouped_confusion_figure(before, before, groups, pairs.head(0), names, "fsa"))


@pytest.mark.parametrize("n_classes", [10, 60, 61, 8142])
def test_pictures_fit_a_screen(n_classes):
    per_class, changes = accuracies(n_classes)
    n = min(n_classes, 60)
    matrix, names = np.eye(n), ["c"] * n
    for figure in (
        class_accuracy_figure(per_class, changes, [PHASE_1]),
        confusion_figure(matrix, matrix, names, ""),
    ):
        assert max(figure.get_size_inches() * DOTS_PER_INCH) <= 3200


def test_learning_curve_is_the_mean_over_seeds():
    runs = [pd.DataFrame({"iteration": [0, 100], "val_overall": values}) for values in ([50, 60], [50, 70])]
    (axes,) = learning_curve_figure({"fsa": runs}).axes
    assert axes.lines[0].get_ydata().tolist() == [50, 65]
    assert axes.get_ylabel() == "validation accuracy, %"


def test_learning_curves_evaluated_at_other_iterations_are_one_line():
    often = pd.DataFrame({"iteration": [0, 50, 100], "test_overall": [50, 55, 60]})
    seldom = pd.DataFrame({"iteration": [0, 100], "test_overall": [50, 70]})
    for runs in ([often, seldom], [seldom, often]):
        (axes,) = learning_curve_figure({"fsa": runs}).axes
        assert axes.lines[0].get_xdata().tolist() == [0, 50, 100]
        assert axes.lines[0].get_ydata().tolist() == [50, 57.5, 65]
        assert axes.get_ylabel() == "test accuracy, %"


def test_learning_curves_of_unlike_splits_are_of_the_loss():
    val = pd.DataFrame({"iteration": [0, 100], "loss": [np.nan, 0.5], "val_overall": [50, 60]})
    none = pd.DataFrame({"iteration": [0, 100], "loss": [np.nan, 0.7]})
    (axes,) = learning_curve_figure({"fsa": [val], "plain": [none]}).axes
    assert [line.get_ydata()[-1] for line in axes.lines] == [0.5, 0.7]
    assert axes.get_ylabel().startswith("training loss")
