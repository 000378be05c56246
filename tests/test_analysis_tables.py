import numpy as np
import pandas as pd
import pytest

from analysis.accuracy import group_accuracies, per_class_frame, summarise
from analysis.shots import shot_groups
from analysis.tables import (
    COLUMNS,
    PHASE_1,
    compare,
    comparison_table,
    format_cell,
    format_change,
    name_configurations,
)
from extract.sources.longtail import long_tail_counts


def test_edges_of_both_shot_rules():
    counts = np.array([101, 100, 99, 21, 20, 19])
    assert shot_groups(counts, "decoupling").tolist() == ["many", *["medium"] * 4, "few"]
    assert shot_groups(counts, "oltr").tolist() == ["many", "many", "medium", "medium", "few", "few"]


@pytest.mark.parametrize(
    ("imbalance", "expected"),
    [(10, (69, 31, 0)), (20, (53, 47, 0)), (50, (41, 41, 18)), (100, (35, 35, 30)), (200, (30, 31, 39))],
)
def test_cifar100_groups(imbalance, expected):
    groups = shot_groups(np.array(long_tail_counts(500, 100, imbalance)), "decoupling")
    assert tuple((groups == name).sum() for name in ("many", "medium", "few")) == expected


@pytest.fixture
def frame() -> pd.DataFrame:
    label = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    prediction = np.array([0, 0, 0, 1, 1, 0, 2, 1])
    return per_class_frame(
        label, prediction, ["a", "b", "c", "d"], np.array([500, 120, 30, 50]), "decoupling"
    )


def test_per_class_frame_by_hand(frame):
    assert frame["n_test"].tolist() == [4, 2, 2, 0]
    assert frame["n_correct"].tolist() == [3, 1, 1, 0]
    np.testing.assert_array_equal(frame["accuracy"], [75, 50, 50, np.nan])


def test_groups_are_means_over_classes_and_overall_over_images(frame):
    accuracies = group_accuracies(frame)
    assert accuracies["overall"] == 62.5
    assert accuracies["balanced_accuracy"] == pytest.approx((75 + 50 + 50) / 3)
    assert accuracies["many"] == 62.5  # (75 + 50) / 2, not 4 of 6
    assert accuracies["medium"] == 50  # a class without test images does not count
    assert np.isnan(accuracies["few"])


def test_empty_group_is_null_with_no_classes_never_zero(frame):
    summary = summarise(frame, "decoupling", {"head": [0, 1], "tail": [2, 3]})
    assert summary["few"] is None
    assert summary["n_classes"] == {"many": 2, "medium": 2, "few": 0, "head": 2, "tail": 2}
    assert (summary["head"], summary["tail"]) == (62.5, 50)  # a class without images does not count
    assert summary["shot_rule"] == "decoupling"
    assert (summary["n_correct"], summary["n_test"]) == (5, 8)


def test_configurations_are_told_apart_by_what_differs():
    runs = [
        {"method": "fsa", "seed": 0, "out": "a", "store": "x", "tau_s": 0.7, "lr": 0.001},
        {"method": "fsa", "seed": 1, "out": "b", "store": "y", "tau_s": 0.7, "lr": 0.001},
        {"method": "fsa", "seed": 0, "out": "c", "store": "x", "tau_s": 0.5, "lr": 0.001},
    ]
    assert name_configurations(runs) == ["fsa, tau_s=0.7", "fsa, tau_s=0.7", "fsa, tau_s=0.5"]
    assert name_configurations(runs[:2]) == ["fsa", "fsa"]


def run_row(configuration, phase1, value, before, option=""):
    values = dict.fromkeys(COLUMNS, value) | {"few": np.nan}
    befores = {f"phase1_{column}": before for column in COLUMNS} | {"phase1_few": np.nan}
    names = {"configuration": configuration, "phase1_configuration": f"Phase I{option}", "phase1": phase1}
    return names | values | befores


def test_comparison_pairs_each_run_with_its_own_phase_1():
    runs = pd.DataFrame(
        [run_row("fsa", "A", 70.0, 60.0), run_row("fsa", "B", 74.0, 68.0), run_row("plain", "A", 61.0, 60.0)]
    )
    table = compare(runs).set_index("configuration")
    assert table.loc[PHASE_1, "n"] == 2  # two networks, though three runs
    assert table.loc[PHASE_1, "overall_mean"] == 64
    assert table.loc["fsa", "overall_mean"] == 72
    assert table.loc["fsa", "overall_std"] == pytest.approx(np.sqrt(8))
    assert table.loc["fsa", "overall_change"] == 8  # (10 + 6) / 2, not 72 − 64 by accident:
    assert table.loc["plain", "overall_change"] == 1  # 61 − 60, though Phase I's mean is 64
    assert np.isnan(table.loc["plain", "overall_std"])
    assert np.isnan(table.loc["fsa", "few_mean"])


def test_networks_trained_otherwise_are_not_seeds_of_one_phase_1():
    runs = [run_row("a", "A", 70.0, 60.0, ", epochs=9"), run_row("b", "B", 74.0, 68.0, ", epochs=30")]
    table = compare(pd.DataFrame(runs)).set_index("configuration")
    assert table["phase"].tolist() == [1, 1, 2, 2]
    assert table.loc["Phase I, epochs=9", "overall_mean"] == 60
    assert table.loc["Phase I, epochs=30", "overall_mean"] == 68


def test_a_table_is_as_wide_as_it_needs():
    name = "fsa, " + ", ".join(f"option_{i}={i}" for i in range(30))
    table = comparison_table(
        compare(pd.DataFrame([run_row(name, "A", 70.0, 60.0)])), dict.fromkeys(COLUMNS, 3)
    )
    (line,) = (line for line in table.splitlines() if line.startswith("fsa"))
    assert line.startswith(name)
    assert line.endswith("70.0")
    assert "\x1b" not in table


def test_cells():
    assert format_cell(70.44, 0.06) == "70.4 ± 0.1"
    assert format_cell(70.44, np.nan) == "70.4"
    assert format_cell(np.nan, np.nan) == "–"
    assert (format_change(4.51), format_change(-0.26), format_change(np.nan)) == ("+4.5", "-0.3", "")
