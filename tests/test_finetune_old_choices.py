"""Runs and sweeps of version 0.1, which has only overall accuracy: read, and resumed with its rule."""

import json
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import refuse, succeed

from analysis.accuracy import SCORES
from analysis.sweeps import rank_configurations, ranking_rows
from finetune.config import FinetuneConfig
from finetune.methods.options import effective_options
from finetune.run import read_run
from finetune.sweep.folder import head_id
from finetune.train import finetune
from finetune.training.head_pool import HeadPool
from finetune.training.resume import unfinished_path
from store.errors import Interrupted
from store.options import flag

MADE = Path(__file__).parent / "data" / "program_0_1"


def test_what_a_summary_lacks_is_counted_from_the_predictions():
    run = read_run(MADE / "run_fsa")
    assert "balanced_accuracy" not in json.loads((MADE / "run_fsa/summary.json").read_text())
    table = run.predictions
    for summary, column in ((run.summary, "prediction"), (run.summary["phase1"], "phase1")):
        of_class = (table[column] == table["label"]).groupby(table["label"]).mean() * 100
        assert summary["balanced_accuracy"] == pytest.approx(of_class.mean())
        for part in ("head", "tail"):
            classes = run.config["facts"][f"{part}_classes"]
            assert summary[part] == pytest.approx(of_class[classes].mean())
            assert summary["n_classes"][part] == len(classes)
    assert run.summary["kept_iteration"] == 40  # what it had stays
    assert run.config["rank_by"] == "overall"


STOP = 24  # between the best over images and the best over classes


@pytest.fixture
def config(course_store, tmp_path) -> FinetuneConfig:
    """The best over images comes before the best over classes."""
    options = {"keep": "best", "select_on": "test", "eval_every": 1, "lr": 0.01}
    config = FinetuneConfig(
        str(course_store), str(tmp_path / "run"), iterations=40, window=8, device="cpu", method="fsa"
    )
    return replace(config, **options)


def interrupt_as_of_old(config: FinetuneConfig, quiet, monkeypatch) -> None:
    """An interrupted run whose state lacks balanced accuracy."""
    train_on = HeadPool.train_on

    def train_until(self, window):
        if window.start >= STOP:
            raise KeyboardInterrupt
        return train_on(self, window)

    with monkeypatch.context() as patch:
        patch.setattr(HeadPool, "train_on", train_until)
        patch.setattr("finetune.training.resume.KEEP_EVERY", -1)  # every step, however fast
        with pytest.raises(Interrupted):
            finetune(replace(config, rank_by="overall"), quiet)
    path = unfinished_path(config.out)
    content = torch.load(path, weights_only=True)
    options = json.loads(content["options"])
    del options["rank_by"]
    assert content["state"]["iteration"] == STOP
    for row in content["state"]["courses"][0]["metrics"]:
        del row["test_balanced_accuracy"]
    torch.save(content | {"options": json.dumps(options)}, path)


def test_an_interrupted_run_chooses_as_it_was_begun(config, quiet, monkeypatch, caplog, tmp_path):
    whole = {
        by: finetune(replace(config, rank_by=by, out=str(tmp_path / by)), quiet)
        for by in ("overall", "balanced")
    }
    kept = {by: run.summary["kept_iteration"] for by, run in whole.items()}
    assert kept["overall"] < STOP < kept["balanced"]
    highest = {by: whole[by].metrics[f"test_{name}"].max() for by, name in SCORES.items()}
    assert highest["balanced"] > highest["overall"]  # and would be kept, if the resumed run chose by it
    interrupt_as_of_old(config, quiet, monkeypatch)
    resumed = finetune(replace(config, resume=True), quiet)
    assert "it still chooses by overall accuracy" in caplog.text
    assert resumed.summary["kept_iteration"] == kept["overall"]
    assert (resumed.path / "head.pt").read_bytes() == (whole["overall"].path / "head.pt").read_bytes()
    metrics = read_run(resumed.path).metrics
    assert "test_balanced_accuracy" not in metrics  # rather than a column with holes
    assert metrics["test_overall"].notna().all()


def test_a_choice_that_is_named_is_not_overruled(config, quiet, monkeypatch):
    """The first half of the run used another: refused, and following the advice finishes the run."""
    interrupt_as_of_old(config, quiet, monkeypatch)
    own = {
        "store",
        "out",
        *(n for n, value in asdict(config).items() if value != getattr(FinetuneConfig, n, 0)),
    }
    options = [word for n in sorted(own) for word in (flag(n), getattr(config, n))]
    command = ["finetune", *options, "--resume"]
    monkeypatch.chdir(Path(config.out).parent)
    says = ["run.unfinished.pt: cannot resume: an older version started this run with rank_by overall"]
    says += ["leave --rank-by balanced out, or start over with --overwrite"]
    refuse(*command, "--rank-by", "balanced", says=says)
    succeed(*command, "--rank-by", "overall")
    assert read_run(Path(config.out)).config["rank_by"] == "overall"


def test_heads_keep_their_names_where_they_are_chosen_as_of_old():
    """A head of version 0.1 is not trained again; one chosen by the other accuracy is another head."""
    old = FinetuneConfig("s", keep="best", rank_by="overall", method="fsa").resolved(10)
    later = ("rank_by", "sampling", "fuse_after")
    options = {k: v for k, v in effective_options(asdict(old)).items() if k not in later} | {"seed": 0}
    assert head_id(old) == sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]
    assert head_id(replace(old, rank_by="balanced")) != head_id(old)
    last = replace(old, keep="last")
    assert head_id(replace(last, rank_by="balanced")) == head_id(last)


def test_sweeps_are_ranked_by_the_accuracy_that_is_named():
    frame = pd.DataFrame(
        {
            "configuration": ["a", "b"],
            "diverged_at": None,
            "val_overall": [60.0, 50.0],
            "val_balanced_accuracy": [40.0, 50.0],
            "test_overall": [61.0, 51.0],
            "test_balanced_accuracy": [41.0, 51.0],
            "test_many": np.nan,
            "test_medium": [10.0, 20.0],
            "test_few": [10.0, 20.0],
            "test_head": [70.0, 60.0],
            "test_tail": [30.0, 40.0],
            "seconds": 1.0,
        }
    )
    found = {by: rank_configurations(frame, "val", by) for by in ("balanced", "overall")}
    assert {by: ranking["configuration"][0] for by, ranking in found.items()} == {
        "balanced": "b",
        "overall": "a",
    }
    header, rows = ranking_rows(found["balanced"], 1)
    shown = ["val balanced", *(f"test {name}" for name in ("overall", "balanced", "medium", "few"))]
    assert header == ["", "configuration", "heads", *shown, "test head", "test tail"]
    assert rows == [["1", "b", "1", "50.0", "51.0", "51.0", "20.0", "20.0", "60.0", "40.0"]]
    of_test, _ = ranking_rows(rank_configurations(frame, "test", "balanced"), 1)
    assert of_test[3:5] == ["test balanced", "test overall"]
