"""The whole way, from a folder of images to a comparison, on data sets and options that chance makes up.

Every command either ends in results that agree with an independent count, or in one line and exit code 2.
`make whole-way` tries two thousand of them.
"""

import csv
import json
import os
import re
import tempfile
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from bad_input import run
from click.testing import Result
from hypothesis import HealthCheck, Phase, event, given, note, settings
from sklearn.metrics import balanced_accuracy_score
from whole_way import Case, cases, counted, write

EXAMPLES = int(os.environ.get("WHOLE_WAY_EXAMPLES", 40))
TINY = ("--arch", "resnet8", "--width", "4", "--epochs", "1", "--device", "cpu", "--workers", "0")


def taken(*arguments: object) -> Result | None:
    """The result of a command; None where it was refused as it should be: in one line, with exit code 2."""
    result = run(*arguments)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("tailcache: note: ")]
    event(f"{arguments[0]}: {'done' if result.exit_code == 0 else re.sub(r'/[^:]*', '/…', lines[-1])}")
    if result.exit_code == 0:
        return result
    note(f"{arguments}\n{result.output}")
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout, len(lines)) == (2, "", 1), result.output
    assert len(lines[0]) > len("tailcache: "), lines
    out = arguments[arguments.index("--out" if "--out" in arguments else "--store") + 1]
    assert not Path(out).exists(), "something half-written"
    return None


@pytest.mark.figures
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 40,  # the suite tries the same ones every time
    phases=set(Phase) - {Phase.shrink},  # an example takes a second: better one that is not the smallest
    suppress_health_check=list(HealthCheck),
)
@given(cases())
def test_results_agree_with_an_independent_count_or_there_is_one_line(case):
    with tempfile.TemporaryDirectory() as folder:
        walk(case, Path(folder))


def walk(case: Case, folder: Path) -> None:
    """All commands, one after the other, until one is refused."""
    root, store = folder / "images", folder / f"feats{case.container}"
    if not write(case, root):
        return
    ckpt, out = folder / "phase1" / "checkpoint.pt", folder / "run"
    if not taken("train", "--root", root, "--out", ckpt.parent, *TINY, *case.train):
        return
    precision = case.train[case.train.index("--precision") + 1] if "--precision" in case.train else "fp32"
    computed = ("--device", "cpu", "--workers", "0", "--precision", precision)
    if not taken("extract", "--ckpt", ckpt, "--store", store, *computed, *case.extract):
        return
    assert run("store", "verify", store).exit_code == 0
    if not taken("finetune", "--store", store, "--out", out, "--device", "cpu", *case.finetune):
        return
    summary = check_run(case, root, out)
    for checkpoint, expected in ((ckpt, summary["phase1"]), (out / "checkpoint.pt", summary)):
        batch = (
            case.extract[case.extract.index("--batch-size") + 1] if "--batch-size" in case.extract else 128
        )
        result = run("evaluate", "--ckpt", checkpoint, "--json", "--batch-size", batch, *computed)
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert (found["n_correct"], found["n_test"]) == (expected["n_correct"], expected["n_test"])
        assert abs(found["balanced_accuracy"] - expected["balanced_accuracy"]) < 1e-9
    rule = (
        case.finetune[case.finetune.index("--shot-rule") + 1]
        if "--shot-rule" in case.finetune
        else "decoupling"
    )
    result = run("analyze", out, "--out", folder / "report", "--json", "--shot-rule", rule)
    assert result.exit_code == 0, result.output
    for row, expected in zip(
        json.loads(result.stdout)["comparison"], (summary["phase1"], summary), strict=True
    ):
        for name in ("overall", "balanced_accuracy", "many", "medium", "few", "head", "tail"):
            told, value = row[f"{name}_mean"], expected[name]
            assert told is value is None or abs(told - value) < 1e-9, name


def check_run(case: Case, root: Path, out: Path) -> dict:
    """Hold a run's files to the folder of images; its summary."""
    images = {split: counted(root, split) for split in case.splits}
    with (out / "per_class.csv").open(newline="", encoding="utf-8") as file:
        per_class = list(csv.DictReader(file))
    assert [row["class_name"] for row in per_class] == list(images["train"])
    n_train = [int(row["n_train"]) for row in per_class]
    assert n_train == expected_counts([len(files) for files in images["train"].values()], case.train)
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        predictions = list(csv.DictReader(file))
    tested = {path: k for k, files in enumerate(images["test"].values()) for path in files}
    assert {row["image"]: int(row["label"]) for row in predictions} == tested
    assert len(predictions) == len(tested)
    summary = json.loads((out / "summary.json").read_text())
    for part, column in ((summary, "prediction"), (summary["phase1"], "phase1")):
        label, predicted = (np.array([int(row[name]) for row in predictions]) for name in ("label", column))
        check_accuracies(part, label, predicted, n_train)
    for k, row in enumerate(per_class):
        right = [r["prediction"] == r["label"] for r in predictions if int(r["label"]) == k]
        assert (int(row["n_test"]), int(row["n_correct"])) == (len(right), sum(right))
        assert (
            row["accuracy"] == "" if not right else abs(float(row["accuracy"]) - 100 * np.mean(right)) < 1e-9
        )
    return summary


def check_accuracies(summary: dict, label: np.ndarray, predicted: np.ndarray, n_train: list[int]) -> None:
    """Every number of a summary, computed from predictions alone."""
    assert (summary["n_correct"], summary["n_test"]) == ((label == predicted).sum(), len(label))
    assert abs(summary["overall"] - 100 * np.mean(label == predicted)) < 1e-9
    present = np.isin(predicted, label)  # scikit-learn counts a class that is predicted alone for one
    with warnings.catch_warnings(action="ignore"):  # of predicted classes that no image has
        balanced = balanced_accuracy_score(label, np.where(present, predicted, -1))
    assert abs(summary["balanced_accuracy"] - 100 * balanced) < 1e-9
    many, few = {"decoupling": (101, 19), "oltr": (100, 20), "5,3": (6, 2), "2,2": (3, 1)}[
        summary["shot_rule"]
    ]
    groups = ["many" if n >= many else "few" if n <= few else "medium" for n in n_train]
    for group in ("many", "medium", "few"):
        of_group = [100 * np.mean(predicted[label == k] == k) for k in set(label) if groups[k] == group]
        told = summary[group]
        assert told is None if not of_group else abs(told - np.mean(of_group)) < 1e-9, group
        assert summary["n_classes"][group] == groups.count(group)


def expected_counts(per_class: list[int], options: tuple[str, ...]) -> list[int]:
    """Training images of each class after the long tail and the validation images are taken."""
    given_ = dict(pairwise(options))
    factor, n_val = given_.get("--imbalance-factor"), int(given_.get("--val-per-class", 0))
    kept = list(per_class)
    if factor is not None:
        long_tailed = max(per_class) > 2 * min(per_class)
        order = sorted(range(len(kept)), key=lambda k: -per_class[k] if long_tailed else k)
        for rank, k in enumerate(order):
            kept[k] = int(min(per_class) * (1 / float(factor)) ** (rank / (len(kept) - 1)))
    return [min(n, all_ - n_val) for n, all_ in zip(kept, per_class, strict=True)]
