"""Accuracy over images and over classes: two numbers with two names, everywhere."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bad_input import refuse, succeed
from made_runs import made_run, write_made_run
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from analysis.accuracy import (
    LEGEND,
    MEASURES,
    SCORES,
    balanced_accuracy,
    group_accuracies,
    per_class_frame,
    shown_measures,
)
from analysis.figures.per_class import learning_curve_figure
from analysis.shots import bounds, rule_in_words, shot_groups
from analysis.tables import PHASE_1, comparison_table


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
    assert overall - balanced > 10  # otherwise the test could not distinguish them
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
    assert shown_measures(found) == ["overall", "balanced_accuracy", "many"]  # all classes are head


def test_head_and_tail_stand_in_where_a_group_is_empty():
    every = dict.fromkeys(("overall", "balanced_accuracy", "many", "medium", "few", "head", "tail"), 50.0)
    assert shown_measures(every) == ["overall", "balanced_accuracy", "many", "medium", "few"]
    without = every | {"medium": None, "few": np.nan}
    assert shown_measures(without) == ["overall", "balanced_accuracy", "many", "head", "tail"]


def test_a_table_of_a_hundred_classes_is_no_wider_than_a_screen():
    ends = {"mean": 99.4, "std": 1.0, "change": -10.5}
    row = {f"{measure}_{end}": value for measure in MEASURES for end, value in ends.items()}
    rows = [
        row | {"phase": phase, "configuration": name, "n": 3} for phase, name in ((1, PHASE_1), (2, "fsa"))
    ]
    sizes = {"many": 35, "medium": 35, "few": 30, "head": 20, "tail": 80}
    lines = comparison_table(pd.DataFrame(rows), sizes).splitlines()
    assert lines[0].split()[3:8] == ["runs", "Overall", "Balanced", "Many", "(35)"]
    assert max(map(len, [*lines, LEGEND])) <= 110


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
    with pytest.raises(ValueError, match="the first not smaller than the second"):
        bounds(rule)


def test_no_column_is_another(tmp_path):
    """In the files, on the screen and in the curve; two runs of either phase differ in all numbers."""
    runs = [made_run(tmp_path / f"run{seed}", 12, seed, per_class=20) for seed in (0, 1)]
    told = succeed("analyze", *map(write_made_run, runs), "--out", tmp_path / "report").stdout.splitlines()
    table = pd.read_csv(tmp_path / "report/summary.csv").set_index("configuration")
    for row, column, line in ((PHASE_1, "phase1", told[1]), ("fsa", "prediction", told[2])):
        of_runs = [(run.predictions["label"], run.predictions[column]) for run in runs]
        overall = 100 * np.mean([accuracy_score(*pair) for pair in of_runs])
        balanced = 100 * np.mean([balanced_accuracy_score(*pair) for pair in of_runs])
        assert abs(overall - balanced) > 2
        assert table.loc[row, "overall_mean"] == pytest.approx(overall)
        assert table.loc[row, "balanced_accuracy_mean"] == pytest.approx(balanced)
        means = re.findall(r"(\d+\.\d)(?: ± \d+\.\d)?", line)
        assert means[:2] == [f"{overall:.1f}", f"{balanced:.1f}"]
    (axes,) = learning_curve_figure({"fsa": [run.metrics for run in runs]}).axes
    assert axes.get_ylabel() == "validation balanced accuracy, %"
    assert axes.lines[0].get_ydata().tolist() == [40, 48, 50.5]


@pytest.mark.usefixtures("in_tmp_path")
def test_a_sweep_ranks_by_what_is_asked(course_store):
    """Logits shifted further towards the rare class are better over classes, and worse over images."""
    sweep = ["sweep", "--store", course_store, "--method", "logit-adjustment", "--grid", "tau=1.5,2.0"]
    sweep += ["--select-on", "test", "--seeds", 1, "--device", "cpu"]
    best = {}
    for measure, column in SCORES.items():
        told = succeed(*sweep, "--rank-by", measure, "--out", measure).stdout
        heads = pd.read_csv(f"{measure}/results.csv").set_index("configuration")[f"test_{column}"]
        ranking = pd.read_csv(f"{measure}/ranking.csv")["configuration"].tolist()
        assert ranking == heads.sort_values(ascending=False).index.tolist()
        assert heads.nunique() == 2
        best[measure] = ranking[0]
        assert told.splitlines()[1].split()[0] == "1"
        assert ranking[0] in told.splitlines()[1]
        assert f"--tau {ranking[0].partition('tau=')[2]}" in told.splitlines()[-1]
    assert best == {"overall": "logit-adjustment, tau=1.5", "balanced": "logit-adjustment, tau=2.0"}


FEW = ["--iterations", 5, "--device", "cpu", "--head-ratio", 0.4, "--confusing-classes", 2]


@pytest.mark.usefixtures("in_tmp_path")
def test_every_command_tells_both_and_says_which_is_which(small_ckpt, small_store):
    """The classes have 8, 6 and 4 test images, and are all in one shot group by default."""
    trained = pd.read_csv(small_ckpt.parent / "metrics.csv").iloc[-1]
    assert {"test_accuracy", "test_balanced_accuracy"} <= set(trained.index)

    line = succeed("finetune", "--store", small_store, "--method", "fsa", "--out", "run", *FEW).stdout
    predictions, summary = (
        pd.read_csv("run/predictions.csv"),
        json.loads(Path("run/summary.json").read_text()),
    )
    for found, column in ((summary, "prediction"), (summary["phase1"], "phase1")):
        label, predicted = predictions["label"], predictions[column]
        assert found["balanced_accuracy"] == pytest.approx(100 * balanced_accuracy_score(label, predicted))
        assert found["overall"] == pytest.approx(100 * accuracy_score(label, predicted))
    assert trained["test_balanced_accuracy"] == pytest.approx(summary["phase1"]["balanced_accuracy"])
    for said, name in (("overall (images)", "overall"), ("balanced (class mean)", "balanced_accuracy")):
        assert f"{said} {summary['phase1'][name]:.1f} → {summary[name]:.1f}" in line
    assert line.index("few") < line.index("head") < line.index("tail")

    evaluate = ["evaluate", "--ckpt", "run/checkpoint.pt", "--device", "cpu"]
    assert "balanced (class mean)" in succeed(*evaluate).stdout
    assert "head: the largest classes with 80 % of the training images" in succeed(*evaluate).stdout
    content = json.loads(succeed(*evaluate, "--json").stdout)
    assert content["balanced_accuracy"] == pytest.approx(summary["balanced_accuracy"])

    sweep = ["sweep", "--store", small_store, *FEW, "--select-on", "test", "--seeds", 1]
    told = succeed(*sweep).stdout
    assert told.splitlines()[0].split("  ")[-1].strip() == "test tail"
    assert "by balanced accuracy" in told
    row = pd.read_csv("runs/sweep/results.csv").iloc[0]
    assert row["test_balanced_accuracy"] == pytest.approx(summary["balanced_accuracy"])
    assert "by overall accuracy" in succeed(*sweep, "--rank-by", "overall", "--overwrite").stdout
    for table in (told, succeed("analyze", "run").stdout, succeed(*evaluate).stdout):
        assert "overall: share of images; balanced, " in table
    table = pd.read_csv("report/summary.csv").set_index("configuration")
    assert table.loc["fsa", "balanced_accuracy_mean"] == pytest.approx(summary["balanced_accuracy"])


@pytest.mark.usefixtures("in_tmp_path")
def test_thresholds_are_kept_and_printed(small_ckpt, small_store):
    """The classes have 8, 6 and 4 training images."""
    rule = ["--shot-rule", "7,5"]
    succeed("finetune", "--store", small_store, "--out", "run", *FEW, *rule)
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["shot_rule"] == "7,5"
    assert [summary["n_classes"][group] for group in ("many", "medium", "few")] == [1, 1, 1]
    of_class = pd.read_csv("run/per_class.csv")
    assert of_class["shot_group"].tolist() == ["many", "medium", "few"]
    assert summary["few"] == of_class["accuracy"][2]
    commands = (
        ["analyze", "run", "--shot-rule", "7,5"],
        ["evaluate", "--ckpt", small_ckpt, "--device", "cpu", *rule],
        ["sweep", "--store", small_store, *FEW, "--select-on", "test", "--seeds", 1, *rule],
    )
    for command in commands:
        assert "shot rule 7,5: Many > 7, Few < 5 training images" in succeed(*command).stdout
    assert pd.read_csv("runs/sweep/results.csv")["test_many"].notna().all()


@pytest.mark.usefixtures("in_tmp_path")
def test_a_rule_is_refused_by_every_command_that_takes_one(small_ckpt, small_store, digits_run):
    for command in (
        ["finetune", "--store", small_store],
        ["sweep", "--store", small_store],
        ["evaluate", "--ckpt", small_ckpt],
        ["analyze", digits_run],
    ):
        refuse(*command, "--shot-rule", "20,100", says=["--shot-rule 20,100: expected the threshold of Many"])


@pytest.mark.usefixtures("in_tmp_path")
def test_what_the_best_is_best_by_is_idle_where_the_last_is_kept(small_store):
    command = ["finetune", "--store", small_store, *FEW, "--rank-by", "overall", "--overwrite"]
    note = "--rank-by changes nothing for fsa+balanced-softmax with loss balanced-softmax and --keep last"
    assert note in succeed(*command).stderr
    assert "changes nothing" not in succeed(*command, "--keep", "best", "--select-on", "test").stderr
