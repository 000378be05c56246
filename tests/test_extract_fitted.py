"""`extract --classifier fit`: a pre-trained network, no training, and all of Phase II on what comes of it."""

import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from bad_input import FEW_CLASSES, QUICK, refuse, run, succeed, write_images
from made_fitted import ARCH, options, write_photos, write_weights
from made_store import contents
from rich.progress import Progress

import tailcache
from extract.cam import class_activation_maps
from extract.checkpoints.checkpoint import file_digest, load_checkpoint
from store.drafts.lifecycle import draft_folder
from store.reader import FeatureStore
from store.storage.lock import sole_writer
from store.verify import verify

PER_CLASS = {"ape": 12, "bee": 8, "cat": 5}
QUIET = Progress(disable=True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "photos", PER_CLASS, ("train", "val", "test"))


@pytest.fixture(scope="module")
def fitted(weights: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store; do not change it."""
    path = tmp_path_factory.mktemp("fitted") / "feats.zarr"
    result = succeed("extract", *options(weights, photos, path), "--dtype", "float32")
    assert "logistic regression on 25 rows, weight decay " in result.stderr
    assert ", chosen on val among " in result.stderr
    store = FeatureStore(path)
    weight, bias = store.classifier
    test, val = store.read("test"), store.read("val")
    right = [int(((of.pooled @ weight.T + bias).argmax(1) == of.label).sum()) for of in (test, val)]
    said = [
        f"{100 * n / 25:.1f} % of 25 {split} images" for n, split in zip(right, ("test", "val"), strict=True)
    ]
    assert all(words in result.stderr for words in said), result.stderr
    assert right[0] > 15  # chance is 12
    return path


def test_the_store_is_as_any_other_and_its_checkpoint_beside_it(fitted, weights, photos):
    store = FeatureStore(fitted)
    ckpt = fitted.with_name("feats.checkpoint.pt")
    assert list(verify(store, QUIET)) == []
    checkpoint = load_checkpoint(ckpt)
    assert store.provenance["checkpoint"]["sha256"] == file_digest(ckpt)
    assert store.provenance["classifier"] == checkpoint.fit
    assert not draft_folder(fitted).exists()
    assert sorted(path.name for path in fitted.parent.iterdir()) == ["feats.checkpoint.pt", "feats.zarr"]
    train, (weight, bias) = store.read("train"), store.classifier
    assert (checkpoint.state["classifier.weight"].numpy() == weight).all()
    logits = train.pooled.astype(float) @ weight.T.astype(float) + bias
    share = np.exp(logits - logits.max(1, keepdims=True))
    error = share / share.sum(1, keepdims=True) - np.eye(3)[train.label]
    decay = checkpoint.fit["weight_decay"]
    gradient = error.T @ train.pooled / len(train.label) + decay * weight
    assert np.abs(gradient).max() < 1e-5 * np.abs(train.pooled).mean()
    maps, label = torch.from_numpy(store.read_feature_map()), torch.from_numpy(train.label.copy()).long()
    cam = class_activation_maps(maps, torch.from_numpy(weight.copy()), label).numpy()
    assert (store.read_cam() == cam.astype(np.float16)).all()
    theirs = torch.load(weights, weights_only=True)
    found = {name.rpartition("conv_stem")[1:]: value for name, value in checkpoint.state.items()}
    assert torch.equal(found["conv_stem", ".weight"], theirs["conv_stem.weight"])
    succeed("store", "verify", fitted, "--sample", 4, "--ckpt", ckpt, "--device", "cpu")


def test_phase_two_and_all_that_follows_take_it(fitted, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = ("--store", fitted, *QUICK, *FEW_CLASSES)
    succeed("finetune", *quick, "--out", "fsa")
    succeed("finetune", *quick, "--method", "balanced-softmax", "--out", "bs")
    succeed(
        "sweep",
        "--store",
        fitted,
        "--method",
        "plain",
        "--method",
        "crt",
        "--seeds",
        2,
        *QUICK,
        "--out",
        "sweep",
    )
    succeed("store", "convert", fitted, "feats.h5")
    assert list(verify(FeatureStore(tmp_path / "feats.h5"), QUIET)) == []
    for ckpt in ("bs/checkpoint.pt", fitted.with_name("feats.checkpoint.pt")):
        result = json.loads(succeed("evaluate", "--ckpt", ckpt, "--device", "cpu", "--json").stdout)
        assert 0 <= result["overall"] <= 100
    files = sorted((photos / "test").rglob("*.png"))
    succeed("predict", "--ckpt", "bs/checkpoint.pt", *files, "--out", "found.csv", "--device", "cpu")
    assert len(pd.read_csv("found.csv")["path"].unique()) == len(files)
    succeed("export", "--ckpt", "bs/checkpoint.pt", "--format", "state-dict", "--out", "net.pth")
    with torch.random.fork_rng(devices=[]):
        network = timm.create_model("test_efficientnet", num_classes=3)
    network.load_state_dict(torch.load("net.pth", weights_only=True))
    succeed("analyze", "fsa", "bs", "--out", "report")


class DeadError(Exception):
    """What a process meets that should be dead."""


def dying_at(patch: pytest.MonkeyPatch, n_calls: int) -> None:
    """From the n-th call on, nothing changes on the disk. (Processes with torch cannot be forked here.)"""
    calls = itertools.count(1)
    for name, found in {"replace": os.replace, "fsync": os.fsync}.items():

        def dying(*arguments, call=found, **options):
            if next(calls) >= n_calls:
                raise DeadError
            return call(*arguments, **options)

        patch.setattr(os, name, dying)


@pytest.mark.usefixtures("several_blocks")
@pytest.mark.parametrize("store", ["feats.zarr", "feats.h5"])
def test_stopped_anywhere_after_the_rows_and_resumed(weights, photos, store, monkeypatch):
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 20_000)
    monkeypatch.setattr("extract.provenance.now", lambda: 0)
    asked = options(weights, photos, store)
    succeed("extract", *asked)
    ckpt, path = Path("feats.checkpoint.pt"), Path(store)
    whole = contents(path), ckpt.read_bytes()

    ckpt.unlink()
    path.unlink() if path.is_file() else shutil.rmtree(path)

    def stop(*_: object) -> None:
        raise DeadError

    with monkeypatch.context() as patch:
        patch.setattr("extract.dump.fit_in_store", stop)
        assert isinstance(run("extract", *asked).exception, DeadError)
    begun = Path("..", f"begun-{store}")
    shutil.copytree(".", begun)
    n_stops, step = 0, 90 if path.suffix == ".zarr" else 12  # resuming, zarr writes all metadata again
    while True:
        with monkeypatch.context() as patch:
            dying_at(patch, 1 + n_stops * step)
            result = run("extract", *asked, "--resume")
        if result.exception is None:
            break
        assert isinstance(result.exception, DeadError), result.output
        n_stops += 1
        succeed("extract", *asked, "--resume")
        assert (contents(path), ckpt.read_bytes()) == whole
        assert sorted(p.name for p in Path().iterdir()) == sorted([store, ckpt.name])
        ckpt.unlink()
        path.unlink() if path.is_file() else shutil.rmtree(path)
        shutil.copytree(begun, ".", dirs_exist_ok=True)
    assert n_stops >= 1


def test_what_does_not_go_together_is_refused_in_one_line(weights, photos, small_ckpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root, fit = ("--root", photos), ("--classifier", "fit")
    refuse("extract", *fit, *root, says=["network must be named with --arch"])
    refuse("extract", *fit, *ARCH, *root, says=["has random weights", "--weights (DEFAULT, or a file)"])
    refuse("extract", *fit, *ARCH, "--weights", weights, says=["images must be named: --root"])
    refuse("extract", *fit, *ARCH, "--weights", "none.pth", *root, says=["none.pth: no such file"])
    both = (*ARCH, "--weights", weights, "--ckpt", weights, *root)
    refuse("extract", *fit, *both, says=["--ckpt names the weights already"])
    refuse("extract", "--ckpt", small_ckpt, *fit, says=["checkpoint of this program", "out --classifier"])
    refuse("extract", "--ckpt", small_ckpt, "--weight-decay", 1, says=["or pass --classifier fit"])
    refuse(
        "extract", *ARCH, "--weights", weights, *root, says=["--ckpt names no checkpoint", "--classifier fit"]
    )
    refuse("extract", *options(weights, photos), "--weight-decay", -1, says=["--weight-decay"])


def test_a_foreign_checkpoint_is_fitted_with_the_decay_that_is_given(
    weights, photos, fitted, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    asked = options(weights, photos)
    asked[asked.index("--weights")] = "--ckpt"
    decay = FeatureStore(fitted).provenance["classifier"]["weight_decay"]
    succeed("extract", *asked, "--dtype", "float32", "--weight-decay", decay)
    store, other = FeatureStore(tmp_path / "feats.zarr"), FeatureStore(fitted)
    assert all((a == b).all() for a, b in zip(store.classifier, other.classifier, strict=True))
    assert store.provenance["classifier"]["chosen_on"] == "given"
    result = succeed("extract", *asked, "--dtype", "float32", "--weight-decay", decay, "--resume")
    assert "accuracy of the fitted classifier" in result.stderr
    refuse("extract", *asked, "--dtype", "float32", "--resume", says=["another weight decay"])


def copied(fitted: Path, folder: Path) -> tuple[Path, Path]:
    """The store and its checkpoint, to change."""
    shutil.copytree(fitted.parent, folder, dirs_exist_ok=True)
    return folder / "feats.zarr", folder / "feats.checkpoint.pt"


def test_a_checkpoint_that_was_lost_is_made_again(fitted, weights, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, ckpt = copied(fitted, tmp_path)
    content = ckpt.read_bytes()
    ckpt.unlink()
    succeed("extract", *options(weights, photos, "feats.zarr"), "--dtype", "float32", "--resume")
    assert ckpt.read_bytes() == content


def test_a_store_in_the_other_container_does_not_take_the_checkpoint(
    fitted, weights, photos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    copied(fitted, tmp_path)
    asked = [*options(weights, photos, "feats.h5"), "--weight-decay", 1]
    says = ["feats.checkpoint.pt: is the checkpoint of feats.zarr too", "name another --store"]
    for further in ([], ["--resume"], ["--overwrite"]):
        refuse("extract", *asked, *further, says=says)


def test_two_at_once_do_not_mix_their_networks(weights, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with sole_writer(tmp_path / "feats.checkpoint.pt", "checkpoint"):  # as another process would
        refuse("extract", *options(weights, photos), says=["another process is writing"])
        refuse("extract", *options(weights, photos), "--overwrite", says=["another process is writing"])


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_maps_of_any_dtype_are_those_of_the_images(weights, photos, tmp_path, monkeypatch, dtype):
    monkeypatch.chdir(tmp_path)
    succeed("extract", *options(weights, photos), "--dtype", dtype, "--weight-decay", 0.1)
    check = ("--sample", 25, "--ckpt", "feats.checkpoint.pt", "--device", "cpu")
    succeed("store", "verify", "feats.zarr", *check)


def test_single_images_leave_nothing_to_choose_on_before_anything_is_written(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = write_images(Path("few"), dict.fromkeys(PER_CLASS, 1), ("train", "test"))
    refuse("extract", *options(weights, root), says=["pass --weight-decay, for example 0.01"])
    succeed("extract", *options(weights, root), "--weight-decay", 0.01)


def test_fits_with_another_decay_are_another_configuration(weights, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for decay in (0.001, 1):
        succeed("extract", *options(weights, photos, f"{decay}.zarr"), "--weight-decay", decay)
        succeed("finetune", "--store", f"{decay}.zarr", *QUICK, *FEW_CLASSES, "--out", f"run-{decay}")
    table = tailcache.compare(["run-0.001", "run-1"])
    assert table["n"].tolist() == [1, 1, 1, 1]


def test_from_python_without_a_checkpoint(weights, photos, fitted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    decay = FeatureStore(fitted).provenance["classifier"]["weight_decay"]
    named = {"arch": ARCH[1], "weights": weights, "root": photos, "classifier": "fit", "weight_decay": decay}
    store = tailcache.extract(
        store="f.h5", image_size=64, batch_size=8, device="cpu", dtype="float32", **named
    )
    both = zip(store.classifier, FeatureStore(fitted).classifier, strict=True)
    assert all((ours == theirs).all() for ours, theirs in both)
