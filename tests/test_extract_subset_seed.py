"""--subset-seed: other images of a long-tailed subset, told apart everywhere, and averaged where one asks."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bad_input import FOLDER, TINY, refuse, succeed, write_images

import tailcache as tc
from extract.checkpoints.checkpoint import load_checkpoint
from extract.dataset import list_dataset
from extract.sources.config import DatasetConfig
from store.errors import UserError
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")
DIGITS = DatasetConfig("digits", imbalance_factor=20, val_per_class=5)


def of_subset(run: Path, name: str, seed: int, phase2_seed: int = 0, **changes: Any) -> str:
    """A copy of a run as of another subset of its source; None removes a key."""
    shutil.copytree(run, name)
    config = json.loads(Path(name, "config.json").read_text())
    made = config["provenance"]["store"]
    drawn = {"subset_seed": seed, "fingerprint": f"{seed}", "content": f"{seed}"} | changes
    made["dataset"] = {key: value for key, value in (made["dataset"] | drawn).items() if value is not None}
    made["checkpoint"]["sha256"] = f"{seed}"
    config["provenance"]["identity"]["images"] |= {"train": f"{seed}", "val": f"{seed}"}
    Path(name, "config.json").write_text(json.dumps(config | {"seed": phase2_seed}))
    return name


def test_subsets_share_their_source_and_test_split_and_nothing_held_out_is_trained_on(quiet):
    first, second = (list_dataset(replace(DIGITS, subset_seed=seed), quiet) for seed in (0, 1))
    assert (first.class_counts == second.class_counts).all()
    assert (first.test.digest == second.test.digest).all()
    assert first.fingerprint != second.fingerprint
    assert first.source_fingerprint == second.source_fingerprint
    assert set(first.train.sample_index) != set(second.train.sample_index)
    for dataset in (first, second):
        rows = [set(split.sample_index.tolist()) for split in dataset.splits.values()]
        assert sum(map(len, rows)) == len(set().union(*rows))
    other = list_dataset(replace(DIGITS, subset_seed=1, imbalance_factor=5), quiet)
    assert other.source_fingerprint == first.source_fingerprint
    assert list_dataset(replace(DIGITS, imbalance_factor=None), quiet).source_fingerprint is None


def test_files_of_other_names_are_another_source(quiet):
    root = write_images(Path("images"))
    described = DatasetConfig("imagefolder", str(root), imbalance_factor=2)
    before = list_dataset(described, quiet).source_fingerprint
    assert list_dataset(replace(described, subset_seed=7), quiet).source_fingerprint == before
    (root / "train/ape/7.png").rename(root / "train/ape/8.png")
    assert list_dataset(described, quiet).source_fingerprint != before


def test_checkpoint_and_store_say_which_subset_they_are_of():
    root = write_images(Path("images"))
    options = [*FOLDER, *TINY, "--root", root, "--imbalance-factor", 2]
    succeed("train", *options, "--subset-seed", 5)
    checkpoint = load_checkpoint(Path("runs/phase1/checkpoint.pt"))
    succeed("extract", "--ckpt", "runs/phase1/checkpoint.pt", "--device", "cpu")
    made = FeatureStore(Path("feats.zarr")).provenance["dataset"]
    assert made["subset_seed"] == checkpoint.dataset["subset_seed"] == 5
    assert made["source_fingerprint"] == checkpoint.source_fingerprint
    assert made["fingerprint"] == checkpoint.fingerprint != made["source_fingerprint"]
    says = ["cannot resume: subset_seed was 5, now it is 6"]
    refuse("train", "--out", "runs/phase1", "--resume", "--epochs", 1, "--subset-seed", 6, says=says)


def test_a_seed_of_no_subset_and_impossible_seeds_are_refused():
    refuse("train", "--subset-seed", 1, says=["--subset-seed 1", "add --imbalance-factor"])
    for seed in (-1, 2**32):
        refuse(
            "train", "--imbalance-factor", 9, "--subset-seed", seed, says=[f"--subset-seed {seed}: must be"]
        )


def test_runs_of_other_subsets_are_refused_unless_averaging_is_asked_for(digits_run):
    of_subset(digits_run, "second", 1)
    says = ["second: is of the subset of --subset-seed 1", "of that of 0", "--across-subsets"]
    refuse("analyze", digits_run, "second", says=says)
    with pytest.raises(UserError, match="--across-subsets"):
        tc.compare([digits_run, "second"])
    of_subset(digits_run, "unrecorded", 0, phase2_seed=1, fingerprint=None)  # of an older version: subset 0
    refuse("analyze", "second", "unrecorded", says=["--across-subsets"])


def test_the_table_says_how_many_subsets_and_runs_a_mean_is_over(digits_run):
    runs = [of_subset(digits_run, f"{seed}-{again}", seed, again) for seed in (1, 2) for again in (0, 1)]
    result = succeed("analyze", digits_run, *runs, "--across-subsets")
    assert result.stderr == ""
    header = result.stdout.splitlines()[0]
    assert header.split()[3:5] == ["runs", "subsets"]
    summary = pd.read_csv("report/summary.csv")
    assert summary[["phase", "n", "n_subsets"]].to_numpy().tolist() == [[1, 3, 3], [2, 5, 3]]
    assert sorted(pd.read_csv("report/runs.csv")["subset_seed"]) == [0, 1, 1, 2, 2]
    pd.testing.assert_frame_equal(
        tc.compare([digits_run, *runs], across_subsets=True), summary, check_dtype=False
    )


def test_subsets_of_other_sources_are_never_averaged(digits_run):
    of_subset(digits_run, "elsewhere", 1, source_fingerprint="another")
    says = ["elsewhere: its subset was drawn from other images", "analyze them separately"]
    refuse("analyze", digits_run, "elsewhere", "--across-subsets", says=says)
    of_subset(digits_run, "changed", 0, phase2_seed=1, fingerprint="other")  # of one subset, other images
    of_subset(digits_run, "second", 1)
    refuse("analyze", digits_run, "changed", "second", "--across-subsets", says=["cannot be compared"])
    tested = json.loads(Path("second/config.json").read_text())
    tested["provenance"]["identity"]["images"]["test"] = "0"
    Path("second/config.json").write_text(json.dumps(tested))
    refuse("analyze", digits_run, "second", "--across-subsets", says=["second", "tested on other images"])


def test_what_is_not_sure_of_an_average_is_said(digits_run):
    of_subset(digits_run, "older", 1, source_fingerprint=None)
    (line,) = succeed("analyze", digits_run, "older", "--across-subsets").stderr.splitlines()
    assert "older: its store does not record what its subset was drawn from" in line
    (line,) = succeed("analyze", digits_run, "--across-subsets").stderr.splitlines()
    assert "--across-subsets changes nothing: all runs are of one subset (--subset-seed 0)" in line
    of_subset(digits_run, "lone", 1)
    config = json.loads(Path("lone/config.json").read_text()) | {"tau_s": 0.123}
    Path("lone/config.json").write_text(json.dumps(config))
    (line,) = succeed("analyze", digits_run, "lone", "--across-subsets").stderr.splitlines()
    assert "is of the subsets 1, but" in line
    assert np.all(pd.read_csv("report/summary.csv")["n_subsets"] == [2, 1, 1])
