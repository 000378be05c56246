"""Accuracy over images and over classes: two numbers, two names, wherever they are told."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from analysis.accuracy import balanced_accuracy, group_accuracies, per_class_frame, shown_measures
from analysis.shots import bounds, rule_in_words, shot_groups


@pytest.fixture
def unbalanced() -> tuple[np.ndarray, np.ndarray]:
    """True and predicted classes of 2,000 images: class 0 has most of them, 5 and 9 have none."""
    generator = np.random.default_rng(0)
    share = np.array([500, 120, 60, 30, 10, 0, 5, 3, 2, 0]) / 730
    label = generator.choice(10, 2000, p=share)
    prediction = np.where(generator.random(2000) < 0.6 / (1 + label), label, generator.integers(0, 10, 2000))
    return label, prediction


def test_both_accuracies_are_scikit_learns(unbalanced):
    label, prediction = unbalanced
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = 100 * balanced_accuracy_score(label, prediction)
    overall = 100 * accuracy_score(label, prediction)
    assert overall - balanced > 10  # a test that could not tell them apart would show nothing
    frame = per_class_frame(label, prediction, list("abcdefghij"), np.arange(10) * 30, "decoupling")
    found = group_accuracies(frame, {"head": [0, 1], "tail": np.arange(2, 10)})
    assert found["overall"] == pytest.approx(overall)
    assert found["balanced_accuracy"] == pytest.approx(balanced)
    assert balanced_accuracy(label, prediction) == pytest.approx(balanced)
    of_class = [100 * (prediction[label == c] == c).mean() for c in range(10) if (label == c).any()]
    assert found["head"] == pytest.approx(np.mean(of_class[:2]))
    assert found["tail"] == pytest.approx(np.mean(of_class[2:]))  # of the classes that have images


def test_a_part_without_classes_has_no_accuracy(unbalanced):
    frame = per_class_frame(*unbalanced, list("abcdefghij"), np.full(10, 200), "decoupling")
    found = group_accuracies(frame, {"head": np.arange(10), "tail": np.arange(0)})
    assert np.isnan([found["tail"], found["medium"], found["few"]]).all()
    assert shown_measures(found) == ["overall", "balanced_accuracy", "many", "head"]


def test_head_and_tail_stand_in_where_a_group_is_empty():
    every = dict.fromkeys(("overall", "balanced_accuracy", "many", "medium", "few", "head", "tail"), 50.0)
    assert shown_measures(every) == ["overall", "balanced_accuracy", "many", "medium", "few"]
    without = every | {"medium": None, "few": np.nan}
    assert shown_measures(without) == ["overall", "balanced_accuracy", "many", "head", "tail"]


def test_thresholds_of_ones_own():
    counts = np.array([201, 200, 51, 50, 49, 0])
    assert shot_groups(counts, "200,50").tolist() == ["many", *["medium"] * 3, "few", "few"]
    assert shot_groups(counts, " 50, 50").tolist() == ["many", "many", "many", "medium", "few", "few"]
    assert bounds("100,20") == bounds("decoupling")
    assert rule_in_words("200,50") == "shot rule 200,50: Many > 200, Few < 50 training images"
    assert rule_in_words("oltr") == "shot rule oltr: Many ≥ 100, Few ≤ 20 training images"


@pytest.mark.parametrize(
    "rule", ["", "mine", "200", "200,50,10", "2e2,50", "200,-1", "1_000,5", "٢٠٠,5", ","]
)
def test_a_rule_that_is_neither_name_nor_thresholds_is_told_what_is(rule):
    with pytest.raises(ValueError, match="expected decoupling, oltr, or two whole numbers such as 200,50"):
        bounds(rule)


@pytest.mark.parametrize("rule", ["50,200", "5,0", f"{2**70},5"])
def test_thresholds_that_cannot_be(rule):
    with pytest.raises(ValueError, match="the first no less than the second"):
        bounds(rule)
