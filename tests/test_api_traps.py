"""Things that a user of `import tailcache` may do, and that must not silently give wrong results."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import refuse, snapshot

import tailcache as tc
from finetune.training.head_pool import HeadPool

FAST = {"iterations": 3, "eval_every": 3, "device": "cpu"}
pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_a_store_that_was_replaced_since_it_was_opened_is_refused(feature_store):
    shutil.copytree(feature_store, "own.zarr")
    store = tc.open_store("own.zarr")
    tc.finetune(store, method="crt", **FAST)
    shutil.move("own.zarr", "older.zarr")
    shutil.copytree(feature_store, "own.zarr")
    for use in (tc.finetune, lambda store, **options: tc.sweep(store, out="s", select_on="test", **options)):
        with pytest.raises(tc.UserError, match=r"own\.zarr: was replaced since it was opened; open it again"):
            use(store, method="crt", **FAST)
    tc.finetune(tc.open_store("own.zarr"), method="crt", **FAST)


def test_a_store_that_is_replaced_during_a_run_is_refused(feature_store, monkeypatch):
    shutil.copytree(feature_store, "own.zarr")
    train_on = HeadPool.train_on

    def replaced_meanwhile(*args):
        if not Path("older.zarr").exists():
            shutil.move("own.zarr", "older.zarr")
            shutil.copytree(feature_store, "own.zarr")
        return train_on(*args)

    monkeypatch.setattr(HeadPool, "train_on", replaced_meanwhile)
    for out in (None, "r"):
        with pytest.raises(tc.UserError, match=r"own\.zarr: was replaced since it was opened"):
            tc.finetune("own.zarr", out=out, ckpt=None, method="crt", **FAST)
        assert not Path("r").exists()
        shutil.rmtree("older.zarr")
    with pytest.raises(tc.UserError, match=r"own\.zarr: was replaced since it was opened"):
        tc.sweep("own.zarr", out="s", select_on="test", seeds=1, method="crt", **FAST)


@pytest.mark.parametrize("method", ["logit-adjustment", "tau-norm", "ncm", "crt"])
def test_what_is_done_to_a_run_does_nothing_to_the_next(feature_store, method):
    store = tc.open_store(feature_store)
    first = tc.finetune(store, method=method, **FAST)
    kept = [part.clone() for part in first.head]
    for part in first.head:
        part.sub_(10)
    first.config["provenance"]["store"]["dataset"]["fingerprint"] = "another"
    again = tc.finetune(store, method=method, **FAST)
    assert all(map(torch.equal, again.head, kept))
    assert again.config["provenance"]["store"]["dataset"]["fingerprint"] != "another"


def test_arrays_of_an_open_store_cannot_be_written_to(feature_store):
    store = tc.open_store(feature_store)
    train = store.read("train")
    for values in (train.label, train.pooled, *store.classifier):
        with pytest.raises(ValueError, match="read-only"):
            values += 1


def test_a_folder_that_another_run_took_over_is_not_taken_for_it(feature_store):
    first = tc.finetune(feature_store, method="plain", out="r", **FAST)
    read = tc.read_run("r")
    second = tc.finetune(feature_store, method="crt", out="r", overwrite=True, **FAST)
    table = tc.compare([first, second])
    assert table["configuration"].tolist()[1:] == ["plain", "crt"]
    with pytest.raises(tc.UserError, match=r"r: was replaced since it was read; read it again"):
        _ = read.head
    assert torch.equal(tc.read_run("r").head.weight, second.head.weight)


def test_a_run_is_the_same_from_another_folder(feature_store, monkeypatch, tmp_path):
    made = tc.finetune(feature_store, method="plain", out="r", **FAST)
    read = tc.read_run("r")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert torch.equal(read.head.weight, made.head.weight)
    assert len(tc.compare([read, "../r"])) == 2  # Phase I and the one run


@pytest.mark.parametrize(("start", "stop"), [(-5, None), (5, 2), (10**6, None)])
def test_rows_that_there_are_not(feature_store, start, stop):
    with pytest.raises(IndexError, match="feature maps"):
        tc.open_store(feature_store).read_feature_map(start, stop)


def test_a_split_that_there_is_not(feature_store):
    with pytest.raises(tc.UserError, match="has no split 'dev', expected one of train,"):
        tc.open_store(feature_store).read("dev")


@pytest.mark.parametrize("flushes", [True, False])
def test_small_numbers_are_as_they_were(feature_store, flushes):
    torch.set_flush_denormal(flushes)
    try:
        tc.finetune(feature_store, method="plain", **FAST)
        assert ((torch.tensor([1e-40]) * 1).item() == 0) == flushes
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("out", ["", ".", "/"])
def test_a_folder_without_a_name_is_refused(feature_store, out):
    before = snapshot(Path())
    refuse(
        "finetune",
        "--store",
        feature_store,
        "--out",
        out,
        says=["is the working directory, or a folder above it"],
    )
    with pytest.raises(tc.UserError, match="is the working directory, or a folder above it"):
        tc.finetune(tc.open_store(feature_store), out=out, **FAST)
    assert snapshot(Path()) == before


def test_values_of_a_grid(feature_store):
    options = {"select_on": "test", **FAST}
    found = tc.sweep(feature_store, out="s", grid={"lr": 1e-3}, **options)
    assert np.allclose(found.results["lr"], 1e-3)
    found = tc.sweep(feature_store, out="u", grid={"tau_s": np.array([0.5, 0.7])}, seeds=1, **options)
    assert found.results["tau_s"].tolist() == [0.5, 0.7]
    for grid in ([1, 2], "lr=1", 5):
        with pytest.raises(tc.UserError, match="expected values by option"):
            tc.sweep(feature_store, out="t", grid=grid, **options)
    with pytest.raises(tc.UserError, match="give it with out="):
        tc.sweep(feature_store, out=None, **options)
    with pytest.raises(tc.UserError, match="shot_rule is 5"):
        tc.compare([], shot_rule=5)


def test_class_names_are_in_a_file():
    with pytest.raises(tc.UserError, match=r"--class-names .*: expected the path of a file of names"):
        tc.extract(class_names=["cat", "dog"], root="photos", arch="resnet50")
