"""Which classes are confused with which: counts of pairs, compared with an independent count."""

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from bad_input import succeed
from made_runs import made_run, write_made_run
from sklearn.metrics import confusion_matrix

from analysis.bins import bin_labels, count_bins
from analysis.confusion import MOST_PAIRS, confused_pairs, group_confusion, pair_lines, with_names
from finetune.commands.results import print_pairs


@pytest.fixture
def predictions() -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Labels of 30 classes of 40 (ten have no test image), and two runs' predictions before and after."""
    rng = np.random.default_rng(0)
    label = rng.permutation(np.repeat(np.arange(30), 7))
    made = [np.where(rng.random(210) < 0.4, label, rng.integers(0, 40, 210)) for _ in range(4)]
    return label, made[:2], made[2:]


def test_pairs_by_hand():
    label = np.array([0, 0, 0, 1, 1, 2])
    before = [np.array([1, 1, 0, 1, 0, 2]), np.array([1, 0, 0, 1, 1, 2])]
    after = [np.array([0, 0, 2, 1, 1, 2]), np.array([0, 0, 0, 1, 1, 2])]
    pairs = confused_pairs(label, before, after, 3)
    assert pairs[["true_id", "predicted_id"]].values.tolist() == [[0, 1], [1, 0], [0, 2]]
    assert pairs["n_test"].tolist() == [3, 2, 3]
    assert pairs["count_before"].tolist() == [1.5, 0.5, 0]
    assert pairs["count_after"].tolist() == [0, 0, 0.5]
    np.testing.assert_allclose(pairs["percent_before"], [50, 25, 0])
    np.testing.assert_allclose(pairs["percent_after"], [0, 0, 100 / 6])


def test_every_wrong_prediction_is_in_one_pair(predictions):
    label, before, after = predictions
    pairs = confused_pairs(label, before, after, 40)
    for column, runs in (("count_before", before), ("count_after", after)):
        counted = Counter((t, p) for run in runs for t, p in zip(label, run, strict=True) if t != p)
        found = {(r.true_id, r.predicted_id): 2 * getattr(r, column) for r in pairs.itertuples()}
        assert {pair: n for pair, n in found.items() if n} == counted
    assert (pairs["n_test"] == 7).all()
    most = pairs[["count_before", "count_after"]].max(axis=1)
    assert most.is_monotonic_decreasing


def test_no_wrong_prediction_no_pair():
    label = np.arange(3)
    pairs = with_names(confused_pairs(label, [label], [label], 3), ["a", "b", "c"], "fsa")
    assert len(pairs) == 0
    assert pair_lines(pairs, 5) == []


def test_groups_of_one_class_are_the_confusion_matrix(predictions):
    label, runs, _ = predictions
    found = group_confusion(label, runs, np.arange(40), errors_only=False)
    counted = sum(confusion_matrix(label, run, labels=np.arange(40)) for run in runs)
    expected = 100 * counted / np.where(np.arange(40) < 30, 14, 1)[:, None]
    np.testing.assert_allclose(found, expected)


def test_groups_hold_their_classes_errors(predictions):
    """Correct images count in the denominator, but not as errors."""
    label, runs, _ = predictions
    group = np.arange(40) // 10
    found = group_confusion(label, runs, group, errors_only=True)
    for row in range(4):
        for column in range(4):
            wrong = [(group[run] == column) & (run != label) & (group[label] == row) for run in runs]
            share = 100 * np.mean(wrong) * len(label) / max(1, (group[label] == row).sum())
            assert found[row, column] == pytest.approx(share)


def test_lines_are_one_each_whatever_the_names():
    names = ["two\nlines", "$a$", "猫", "x" * 40]
    label, wrong = np.array([0, 0, 1, 2, 3]), np.array([1, 1, 2, 3, 0])
    lines = pair_lines(with_names(confused_pairs(label, [wrong], [label], 4), names, "fsa"), 3)
    assert [line.split("  ")[0] for line in lines] == [r"'two\nlines' → $a$", "$a$ → 猫", f"猫 → {'x' * 40}"]
    assert lines[0].endswith("2.0 → 0.0  of 2")


def test_a_report_has_the_pairs_of_every_configuration(tmp_path):
    runs = [
        write_made_run(made_run(tmp_path / f"run{i}", 12, seed=i, per_class=20, tau_s=tau_s))
        for i, tau_s in enumerate([0.7, 0.7, 0.5])
    ]
    result = succeed("analyze", *runs, "--out", tmp_path / "report")
    pairs = pd.read_csv(tmp_path / "report/confused_pairs.csv")
    assert pairs["configuration"].unique().tolist() == ["fsa, tau_s=0.7", "fsa, tau_s=0.5"]
    for name, members in pairs.groupby("configuration"):
        of_runs = runs[:2] if name.endswith("0.7") else runs[2:]
        frames = [pd.read_csv(run / "predictions.csv") for run in of_runs]
        of_runs_label = frames[0]["label"]
        for row in members.itertuples():
            for column, count in (("phase1", row.count_before), ("prediction", row.count_after)):
                of_pair = [(f["label"] == row.true_id) & (f[column] == row.predicted_id) for f in frames]
                assert count == np.mean([found.sum() for found in of_pair])
            assert row.true_class == f"class{row.true_id:04d}"
            assert row.predicted_class == f"class{row.predicted_id:04d}"
            n_test = (of_runs_label == row.true_id).sum()
            assert row.n_test == n_test
            assert row.percent_after == pytest.approx(100 * row.count_after / n_test)
    first = pairs.iloc[0]
    line = next(line for line in result.stdout.splitlines() if " → class" in line)
    assert line.split() == [
        *(first["true_class"], "→", first["predicted_class"]),
        *(f"{first['count_before']:.1f}", "→", f"{first['count_after']:.1f}", "of", str(first["n_test"])),
    ]


def test_the_screen_has_no_other_configurations_pairs(capsys):
    """The first configuration confuses two pairs, the second more."""
    label, names = np.arange(6), [f"class{c}" for c in range(6)]
    after = {"fsa": [1, 0, 2, 3, 4, 5], "crt": [2, 3, 4, 5, 0, 1]}
    pairs = [
        with_names(confused_pairs(label, [label], [np.array(x)], 6), names, name) for name, x in after.items()
    ]
    comparison = pd.DataFrame({"phase": [1, 2, 2], "configuration": ["Phase I", *after]})
    print_pairs(SimpleNamespace(comparison=comparison, pairs=pd.concat(pairs)))
    title, *lines = capsys.readouterr().out.splitlines()
    assert "with fsa, mean" in title
    assert [line.split("  ")[1] for line in lines] == ["class0 → class1", "class1 → class0"]
    print_pairs(SimpleNamespace(comparison=comparison, pairs=pairs[1]))  # the first has none
    assert capsys.readouterr().out == ""


def test_a_file_of_pairs_is_bounded():
    label = np.zeros(3000, int)
    pairs = confused_pairs(label, [np.arange(3000)], [label], 3000)
    assert len(with_names(pairs, [str(c) for c in range(3000)], "fsa")) == MOST_PAIRS


def test_bins_hold_every_class_once_and_part_equal_counts_only_where_they_are_many():
    rng = np.random.default_rng(0)
    for counts in (
        rng.integers(1, 1000, 400),
        np.r_[np.full(300, 2), np.arange(3, 200)],
        np.full(70, 5),
        np.r_[9, np.full(99, 4)],
        np.arange(61),
        rng.permutation(np.repeat([100, 7, 6, 2], [100, 3, 2, 95])),
    ):
        bins = count_bins(counts, 20)
        assert sorted(np.concatenate(bins).tolist()) == list(range(len(counts)))
        assert 1 <= len(bins) <= 20
        ends = [(counts[members].max(), counts[members].min()) for members in bins]
        for (before, after), (one, other) in zip(pairwise(ends), pairwise(bins), strict=True):
            if before == after:  # a single count: groups by class id
                assert before[0] == before[1]
                assert min(len(one), len(other)) >= len(counts) // 20
                assert one.max() < other.min()
            else:
                assert before[1] > after[0]
    assert bin_labels(np.array([1000, 640, 7, 7]), [np.array([0, 1]), np.array([2, 3])]) == ["1,000–640", "7"]


@pytest.mark.parametrize("counts", [np.full(100, 50), np.r_[np.full(99, 50), 49]])
def test_balanced_classes_are_groups_too(counts):
    bins = count_bins(counts, 20)
    assert len(bins) >= 19
    assert max(map(len, bins)) <= 6
    labels = bin_labels(counts, bins)
    assert labels[0] == f"50 (ids 0–{len(bins[0]) - 1})"
    assert len(set(labels)) == len(bins)


def test_bins_are_of_about_as_many_classes():
    sizes = [len(members) for members in count_bins(np.random.default_rng(0).permutation(400), 20)]
    assert sizes == [20] * 20
