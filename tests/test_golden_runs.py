"""Files of version 0.1 stay readable: a checkpoint, runs, a sweep, an interrupted training."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import succeed

from finetune.run import read_run
from store.reader import FeatureStore

MADE = Path(__file__).parent / "data" / "program_0_1"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A copy that may be written to."""
    return Path(shutil.copytree(MADE, tmp_path / "made"))


def test_its_checkpoint_is_evaluated_on_its_images():
    result = succeed(
        "evaluate",
        "--ckpt",
        MADE / "phase1/checkpoint.pt",
        "--root",
        MADE / "images",
        "--json",
        "--device",
        "cpu",
    )
    found = json.loads(result.stdout)
    assert (found["n_correct"], found["n_test"]) == (4, 12)  # Phase I's, from run_fsa/summary.json
    assert "recorded names of images but no digests" in result.stderr


def test_its_training_goes_on_to_the_weights_of_one_that_never_stopped(made):
    succeed("train", "--resume", "--out", made / "half_phase1", "--root", made / "images", "--device", "cpu")
    resumed, whole = (
        torch.load(made / name / "checkpoint.pt", weights_only=True)["state"]
        for name in ("half_phase1", "phase1")
    )
    for name, tensor in whole.items():  # other processors round otherwise
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-3, atol=1e-4)


def test_its_store_is_extracted_again_from_its_checkpoint(made):
    ckpt = made / "phase1/checkpoint.pt"
    succeed(
        "extract", "--ckpt", ckpt, "--root", made / "images", "--store", made / "new.zarr", "--device", "cpu"
    )
    old, new = FeatureStore(MADE / "feats.zarr"), FeatureStore(made / "new.zarr")
    for split in ("train", "val", "test"):
        a, b = old.read(split), new.read(split)
        assert np.array_equal(a.label, b.label)
        assert np.array_equal(a.sample_index, b.sample_index)
        np.testing.assert_allclose(a.pooled, b.pooled, rtol=1e-3, atol=1e-4)


def test_its_runs_are_read():
    run = read_run(MADE / "run_fsa")
    assert run.summary["overall"] == 50.0
    assert run.summary["phase1"]["n_correct"] == 4
    assert run.per_class["class_name"].tolist() == ["ape", "bête", "cat with spaces"]
    assert run.predictions["prediction"].tolist() == [0, 0, *[1] * 6, *[0] * 4]


@pytest.mark.figures
def test_its_runs_are_analyzed(tmp_path):
    out = tmp_path / "report"
    succeed("analyze", MADE / "run_fsa", MADE / "run_ncm", "--out", out)
    table = pd.read_csv(out / "summary.csv").set_index("configuration")
    assert table["overall_mean"].round(1).to_dict() == {"Phase I": 33.3, "fsa": 50.0, "ncm": 83.3}


def test_its_store_is_finetuned(made):
    succeed(
        *(
            "finetune",
            "--store",
            made / "feats.zarr",
            "--out",
            made / "again",
            "--method",
            "fsa",
            "--device",
            "cpu",
        ),
        *(
            "--iterations",
            40,
            "--eval-every",
            20,
            "--batch-size",
            16,
            "--ckpt",
            made / "phase1/checkpoint.pt",
        ),
    )
    new, old = (
        torch.load(path / "head.pt", weights_only=True) for path in (made / "again", made / "run_fsa")
    )
    for name in ("weight", "bias"):  # the same draws; other processors round otherwise
        torch.testing.assert_close(new[name], old[name], rtol=1e-4, atol=1e-5)


def test_its_sweep_goes_on(made):
    """Finished heads are not trained again."""
    rows = {file.name: file.read_bytes() for file in (made / "sweep/done").iterdir()}
    kept = sorted(rows)[:2]
    for name in rows.keys() - set(kept):
        (made / "sweep/done" / name).unlink()
    for name in ("results.csv", "results.parquet", "ranking.csv"):
        (made / "sweep" / name).unlink()
    result = succeed(
        *(
            "sweep",
            "--store",
            made / "feats.zarr",
            "--out",
            made / "sweep",
            "--method",
            "fsa",
            "--iterations",
            20,
        ),
        *("--grid", "tau_s=0.5,0.7", "--seeds", 2, "--device", "cpu", "--heads", "--resume"),
    )
    assert all((made / "sweep/done" / name).read_bytes() == rows[name] for name in kept)
    old, new = (pd.read_csv(path / "sweep/results.csv") for path in (MADE, made))
    assert old["test_overall"].tolist() == new["test_overall"].tolist()
    assert old["configuration"].tolist() == new["configuration"].tolist()
    assert not [name for name in new if "balanced" in name]  # known for only some heads: no column with holes
    assert result.stderr.count("still ranked by overall accuracy") == 1
    ranking = pd.read_csv(made / "sweep/ranking.csv")
    assert ranking["rank_by"].tolist() == ["overall"] * 2
    assert ranking["val_overall_mean"].is_monotonic_decreasing
