"""Which splits a run evaluates before its end, and what it reports about them."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bad_input import refuse, run, snapshot, succeed
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from finetune.config import FinetuneConfig
from finetune.loading.features import HeldOut
from finetune.train import finetune
from finetune.training.head_pool import HeadPool

GROUPS = ("overall", "balanced_accuracy", "many", "medium", "few")
LOOKED = "chosen on the test set"


@pytest.fixture
def with_val(feature_store, tmp_path) -> FinetuneConfig:
    out = str(tmp_path / "run")
    return FinetuneConfig(
        str(feature_store), out, iterations=30, eval_every=10, lr=0.3, device="cpu", method="fsa"
    )


@pytest.fixture
def without_val(with_val, small_store) -> FinetuneConfig:
    """Three classes, and no validation split."""
    return replace(with_val, store=str(small_store), confusing_classes=2, head_ratio=0.4)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Events of a run: steps, and predictions on a split."""
    seen: list[str] = []
    train_on, predict = HeadPool.train_on, HeldOut.predict

    def training(self, window):
        seen.append("steps")
        return train_on(self, window)

    def predicting(self, *arguments):
        seen.append(self.name)
        return predict(self, *arguments)

    monkeypatch.setattr(HeadPool, "train_on", training)
    monkeypatch.setattr(HeldOut, "predict", predicting)
    return seen


def columns(split: str | None) -> list[str]:
    """Columns of metrics.csv."""
    return ["iteration", "loss", *(f"{split}_{group}" for group in GROUPS if split)]


STEPS_AND_VAL = ["val", *(["steps", "val"] * 3)]
STEPS_AND_TEST = ["test", *(["steps", "test"] * 3)]
AT_THE_END = {"val": ["val"] * 2, "test": ["test"] * 2}  # Phase I's head and the run's


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_test_set_is_predicted_once_and_after_the_last_choice(with_val, events, quiet, keep):
    metrics = finetune(replace(with_val, keep=keep), quiet).metrics
    assert events == STEPS_AND_VAL + AT_THE_END["val"] + AT_THE_END["test"]
    assert list(metrics) == columns("val")


@pytest.mark.parametrize("keep", ["last", "best"])
def test_choices_on_the_test_set_look_at_it_and_not_at_val(with_val, events, quiet, keep):
    metrics = finetune(replace(with_val, keep=keep, select_on="test"), quiet).metrics
    assert events == STEPS_AND_TEST + AT_THE_END["val"] + AT_THE_END["test"]
    assert list(metrics) == columns("test")


def test_without_val_there_is_only_the_loss(without_val, events, quiet):
    made = finetune(without_val, quiet)
    assert events == ["steps"] * 3 + AT_THE_END["test"]
    assert list(made.metrics) == columns(None)
    assert made.metrics["loss"][1:].notna().all()
    assert "val" not in made.summary


@pytest.mark.parametrize("method", ["ncm", "tau-norm", "logit-adjustment"])
def test_a_head_that_is_computed_is_looked_at_as_others_are(with_val, events, quiet, method):
    metrics = finetune(replace(with_val, method=method, keep="best"), quiet).metrics
    assert events == ["val"] + AT_THE_END["val"] + AT_THE_END["test"]
    assert list(metrics) == columns("val")
    assert metrics["iteration"].tolist() == [0]


@pytest.mark.parametrize("method", ["fsa", "ncm"])
def test_keep_best_without_val_names_both_ways_out(without_val, in_tmp_path, method):
    command = ["finetune", "--store", without_val.store, "--out", "run", "--device", "cpu"]
    command += ["--method", method, "--keep", "best"]
    says = ["--keep best: the store has no val split", "--val-per-class", "--select-on test"]
    refuse(*command, says=says)


@pytest.mark.parametrize(("rank_by", "score"), [("overall", "overall"), ("balanced", "balanced_accuracy")])
def test_keep_best_on_the_test_set(course_store, with_val, quiet, rank_by, score):
    """The test set is unbalanced: the best over images is not the best over classes."""
    config = replace(with_val, store=str(course_store), iterations=40, eval_every=1, lr=0.01)
    made = finetune(replace(config, keep="best", select_on="test", rank_by=rank_by), quiet)
    found = {name: made.metrics[f"test_{name}"] for name in ("overall", "balanced_accuracy")}
    first = {name: values.idxmax() for name, values in found.items()}
    assert 0 < first["overall"] < first["balanced_accuracy"] < 40
    assert all((values == values.max()).sum() > 1 for values in found.values())  # on a tie, the first is kept
    assert list(made.metrics) == columns("test")
    assert made.summary["kept_iteration"] == made.metrics["iteration"][first[score]]
    assert made.summary[score] == pytest.approx(found[score].max())
    assert made.summary["select_on"] == made.config["select_on"] == "test"


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("select_on", ["val", "test"])
def test_the_command_line_says_whether_the_test_set_was_looked_at(with_val, keep, select_on):
    command = ["finetune", "--store", with_val.store, "--out", with_val.out, "--device", "cpu"]
    command += ["--iterations", 2, "--keep", keep, "--select-on", select_on]
    assert (LOOKED in succeed(*command).stdout) == (select_on == "test")
    assert json.loads(Path(with_val.out, "summary.json").read_text())["select_on"] == select_on
    assert json.loads(succeed(*command, "--overwrite", "--json").stdout)["select_on"] == select_on


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every tag, as TensorBoard reads them."""
    read = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


@pytest.mark.parametrize("fixture", ["with_val", "without_val"])
def test_event_files_hold_what_metrics_csv_holds(request, fixture, quiet):
    """TensorBoard's numbers are float32; a missing loss is missing there too."""
    made = finetune(replace(request.getfixturevalue(fixture), tensorboard=True), quiet)
    metrics = pd.read_csv(made.path / "metrics.csv")
    found = scalars(made.path / "events")
    assert found.keys() == set(metrics.columns) - {"iteration"}
    for name, pairs in found.items():
        expected = metrics[["iteration", name]].dropna().to_numpy().tolist()
        assert [step for step, _ in pairs] == [step for step, _ in expected]
        assert [value for _, value in pairs] == pytest.approx([value for _, value in expected], rel=1e-6)
    assert len(found["loss"]) == 3


def test_a_run_with_events_is_a_run_like_others(with_val, tmp_path, quiet):
    """It has the same configuration as a run without them, and either can replace the other."""
    plain = replace(with_val, seed=1, out=str(tmp_path / "plain"))
    first = finetune(replace(with_val, tensorboard=True), quiet)
    finetune(plain, quiet)
    report = ["analyze", with_val.out, plain.out, "--out", tmp_path / "report", "--json"]
    compared = json.loads(succeed(*report).stdout)["comparison"]
    assert [(row["configuration"], row["n"]) for row in compared] == [("Phase I", 1), ("fsa", 2)]

    head = (first.path / "head.pt").read_bytes()
    finetune(replace(with_val, overwrite=True), quiet)
    assert not (first.path / "events").exists()
    assert (first.path / "head.pt").read_bytes() == head
    for _ in range(2):
        finetune(replace(with_val, tensorboard=True, overwrite=True), quiet)
        assert len(list((first.path / "events").iterdir())) == 1


def test_overwrite_spares_what_is_no_event_file(with_val, quiet):
    made = finetune(replace(with_val, tensorboard=True), quiet)
    (made.path / "events" / "thesis.txt").write_text("three years of work")
    before = snapshot(made.path)
    command = ["finetune", "--store", with_val.store, "--out", with_val.out, "--device", "cpu", "--overwrite"]
    result = run(*command)
    assert result.exit_code == 2
    assert "already exists and is not a run that may be replaced (it holds thesis.txt)" in result.stderr
    assert snapshot(made.path) == before
