"""The checkpoint beside a store of another program's network: killed, resumed, replaced, in the way."""

import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from bad_input import refuse, run, succeed
from dying import DURABLE, in_child, syncs_a_folder
from made_foreign import IMAGES, NAMES, STATISTICS, USERS, authors_network, write_digits
from made_views import assert_same
from safetensors.torch import save_file

from extract.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from store.drafts.lifecycle import draft_folder
from store.reader import FeatureStore
from store.writer import StoreWriter

pytestmark = pytest.mark.usefixtures("in_tmp_path")
HOW = ["--root", "photos", "--arch", USERS, *IMAGES, *STATISTICS, "--batch-size", 16]
EXTRACT = ["extract", "--ckpt", "users.pth", *HOW]
BESIDE, DRAFT = Path("feats.checkpoint.pt"), Path("feats.checkpoint.pt.unfinished")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few digits in class folders."""
    return write_digits(tmp_path_factory.mktemp("digits") / "photos", 12, 6)


@pytest.fixture(autouse=True)
def _here(photos: Path, in_tmp_path: None, monkeypatch: pytest.MonkeyPatch):
    """Photos and a file of weights in the working folder; stores have several blocks."""
    Path("photos").symlink_to(photos)
    torch.save(authors_network(USERS, 4).state_dict(), "users.pth")
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 2048)


def counting(call: Callable, n_calls: Iterator[int]) -> Callable:
    def counted(*arguments):
        if not syncs_a_folder(*arguments):
            next(n_calls)
        return call(*arguments)

    return counted


def n_durable() -> int:
    """How many calls of an extraction change the state on disk, as `in_child` counts them."""
    n_calls = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        for name in DURABLE:
            patch.setattr(os, name, counting(getattr(os, name), n_calls))
        succeed(*EXTRACT, "--store", "counted.zarr")
    return next(n_calls)


def test_killed_at_any_step_it_resumes_to_the_same_bytes():
    last = n_durable()
    whole = Path("counted.checkpoint.pt").read_bytes()
    for die_at in (2, 3, last // 2, last - 1, last):
        assert in_child(lambda: run(*EXTRACT, "--store", "feats.zarr"), die_at) == signal.SIGKILL, die_at
        assert not BESIDE.exists() or Path("feats.zarr").exists()
        succeed(*EXTRACT, "--store", "feats.zarr", "--resume")
        assert BESIDE.read_bytes() == whole
        assert_same(Path("feats.zarr"), Path("counted.zarr"))
        assert not [path for path in Path().iterdir() if "unfinished" in path.name]
        succeed("finetune", "--store", "feats.zarr", "--out", "run", "--method", "plain", "--iterations", 2)
        for path in (Path("feats.zarr"), Path("run")):
            shutil.rmtree(path)
        BESIDE.unlink()


def interrupted(*options: object) -> None:
    """Leave an extraction interrupted after two blocks."""
    write, n_writes = StoreWriter.write, itertools.count()

    def stop(*arguments, **named) -> None:
        if next(n_writes) == 2:
            raise KeyboardInterrupt
        write(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoreWriter, "write", stop)
        assert run(*EXTRACT, "--store", "feats.zarr", *options).exit_code == 130


def test_an_order_of_classes_that_was_named_is_named_again():
    Path("names").write_text("one\nzero\nthree\ntwo\n")
    again = [*EXTRACT, "--store", "feats.zarr", "--resume"]
    succeed(*again[:-1], "--class-names", "names")
    refuse(*again, says=["with another order of classes (--class-names ", "than now (no --class-names)"])
    succeed(*again, "--class-names", "names")


def test_what_is_resumed_is_what_was_begun():
    interrupted("--seed", 3, "--views", 2)
    assert draft_folder(Path("feats.zarr")).exists()
    assert DRAFT.exists()
    assert not BESIDE.exists()
    again = [*EXTRACT, "--store", "feats.zarr", "--seed", 3, "--views", 2, "--resume"]
    state = torch.load("users.pth", weights_only=True)
    torch.save(state | {"head.bias": state["head.bias"] + 1}, "other.pth")
    other = [*again[:2], "other.pth", *again[3:]]
    refuse(*other, says=["feats.zarr: was started with another file of weights (", "--overwrite"])
    refuse(*again, "--mean", "0.4,0.5,0.5", says=["with another --mean (0.5,0.5,0.5) than now (0.4,0.5,0.5)"])
    refuse(*again, "--seed", 4, says=["was started with another --seed (3) than now (4)"])
    refuse(*again, "--classifier", "fresh", says=["with another --classifier (checkpoint) than now (fresh)"])
    refuse(*again, "--val-per-class", 2, says=["with another --val-per-class (0) than now (2)"])
    Path("names").write_text("two\nzero\none\nthree\n")
    refuse(*again, "--class-names", "names", says=["was started with another order of classes (one, three"])
    refuse(*again[:-1], says=["is an unfinished store; pass --resume to continue it"])
    os.rename("users.pth", "renamed.pth")  # a file is known by what it holds
    result = succeed(*again[:2], "renamed.pth", *again[3:])
    assert "first accuracy" not in result.stderr  # which was said
    assert load_checkpoint(BESIDE).config["seed"] == 3
    assert not DRAFT.exists()


def test_images_that_changed_since_it_was_begun_are_told():
    here = Path("photos").resolve()
    Path("photos").unlink()
    shutil.copytree(here, "photos")
    interrupted()
    Path("photos/train/two/new.png").write_bytes(Path("photos/train/two/00.png").read_bytes())
    says = ["1 new (the first is train/two/new.png)", "with --overwrite, the extraction starts over"]
    refuse(*EXTRACT, "--store", "feats.zarr", "--resume", says=says)


def test_ctrl_c_before_anything_is_computed_leaves_nothing(monkeypatch):
    monkeypatch.setattr(StoreWriter, "write_known", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    result = run(*EXTRACT, "--store", "feats.zarr")
    assert result.exit_code == 130
    assert "interrupted before anything new was saved; start again with: " in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["photos", "users.pth"]


def test_a_store_that_is_replaced_keeps_its_checkpoint_until_then():
    succeed(*EXTRACT, "--store", "feats.zarr")
    before = BESIDE.read_bytes()
    interrupted("--seed", 1, "--overwrite")
    assert BESIDE.read_bytes() == before
    succeed("finetune", "--store", "feats.zarr", "--out", "run", "--method", "plain", "--iterations", 2)
    succeed(*EXTRACT, "--store", "feats.zarr", "--seed", 1, "--resume")
    assert load_checkpoint(BESIDE).config["seed"] == 1
    succeed("finetune", "--store", "feats.zarr", "--out", "two", "--method", "plain", "--iterations", 2)


def test_a_checkpoint_that_is_there_is_never_lost_unasked():
    succeed(*EXTRACT, "--store", "feats.zarr")
    before = BESIDE.read_bytes()
    shutil.rmtree("feats.zarr")
    refuse(
        *EXTRACT, "--store", "feats.zarr", "--seed", 1, says=[f"{BESIDE}: is the checkpoint of an earlier"]
    )
    succeed(*EXTRACT, "--store", "feats.zarr")  # the same again
    assert BESIDE.read_bytes() == before
    other = [*EXTRACT, "--store", "feats.h5", "--seed", 1]
    refuse(*other, says=["is the checkpoint of an earlier store, with another --seed (0) than now (1)"])
    refuse(*other, "--overwrite", says=["is the checkpoint of feats.zarr too, which would lose it"])
    succeed(*EXTRACT, "--store", "feats.h5")
    shutil.rmtree("feats.zarr")
    succeed(*other, "--overwrite")


@pytest.mark.parametrize("what", ["text", "folder", "trained", "weights"])
def test_what_is_not_the_programs_is_never_replaced(what):
    if what == "text":
        BESIDE.write_text("my thesis")
    elif what == "folder":
        BESIDE.mkdir()
    elif what == "weights":
        shutil.copy("users.pth", BESIDE)
    else:
        succeed(*EXTRACT, "--store", "x.zarr")
        adopted = load_checkpoint(Path("x.checkpoint.pt"))
        object.__setattr__(adopted, "epoch", 3)
        save_checkpoint(adopted, BESIDE)
    for options in ([], ["--overwrite"]):
        refuse(*EXTRACT, "--store", "feats.zarr", *options, says=["feats.checkpoint.pt: "])


def test_a_store_in_a_bucket_has_its_checkpoint_in_the_working_folder(bucket):
    succeed(*EXTRACT, "--store", bucket)
    assert load_checkpoint(Path("s.checkpoint.pt")).adopted
    resumed = succeed(*EXTRACT, "--store", bucket, "--resume")
    assert "first accuracy" not in resumed.stderr
    short = ["--method", "plain", "--iterations", 2, "--device", "cpu"]
    succeed("finetune", "--store", bucket, "--out", "run", *short)
    Path("s.checkpoint.pt").unlink()  # as on another machine: the same command makes it again
    succeed(*EXTRACT, "--store", bucket, "--resume")
    succeed("finetune", "--store", bucket, "--out", "again", *short)


def test_a_folder_where_the_draft_goes_is_told_before_images_are_read(monkeypatch):
    DRAFT.mkdir()
    monkeypatch.setattr("extract.adoption.beside_store.adopt", None)
    refuse(
        *EXTRACT, "--store", "feats.zarr", says=[f"{DRAFT}: is a folder, where the store's checkpoint lie"]
    )


def test_a_checkpoint_that_extract_wrote_is_not_one_of_a_training():
    succeed(*EXTRACT, "--store", "feats.zarr")
    says = ["--image-size: feats.checkpoint.pt is a checkpoint of this program, which determines network and"]
    refuse("extract", "--ckpt", BESIDE, *HOW, "--store", "b.zarr", says=says)
    Path("run").mkdir()
    shutil.copy(BESIDE, "run/checkpoint.pt")
    says = ["run/checkpoint.pt: is a checkpoint that `extract` wrote", "`train --weights run/checkpoint.pt`"]
    refuse("train", "--resume", "--out", "run", "--arch", USERS, says=says)
    begin = ["train", "--weights", "run/checkpoint.pt", "--arch", USERS, "--root", "photos", *IMAGES]
    said = succeed(*begin, "--epochs", 1, "--lr", 0, "--out", "trained").stderr
    assert "run/checkpoint.pt: 9 tensors" in said
    states = (load_checkpoint(path).state for path in (BESIDE, Path("trained/checkpoint.pt")))
    began, trained = ({n: v for n, v in s.items() if n.endswith("0.weight")} for s in states)
    assert all(torch.equal(trained[name], value) for name, value in began.items())


LISTS = {
    "a list": {"classes": json.dumps(NAMES)},
    "numbers by name": {"class_to_idx": json.dumps({name: k for k, name in enumerate(NAMES)})},
    "names by number": {"id2label": json.dumps({str(k): name for k, name in enumerate(NAMES)}), "by": "me"},
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_classes_in_safetensors_are_read(kind):
    save_file(torch.load("users.pth", weights_only=True), "w.safetensors", LISTS[kind])
    said = succeed("extract", "--ckpt", "w.safetensors", *HOW, "--store", "feats.zarr").stderr
    assert "are taken to be zero, one, two, three (the checkpoint's own list;" in said
    assert FeatureStore(Path("feats.zarr")).class_names == list(NAMES)


def test_a_list_that_gives_no_order_is_told_with_the_order_that_is_taken():
    state = torch.load("users.pth", weights_only=True)
    text = {"classes": ",".join(NAMES)}
    torch.save({"state_dict": state} | text, "w.pth")
    said = succeed("extract", "--ckpt", "w.pth", *HOW, "--store", "a.zarr").stderr
    assert "w.pth: its classes gives no names for outputs 0, 1, 2, …, so it is not used" in said
    from_one = {str(k): name for k, name in enumerate(NAMES, 1)}
    save_file(state, "w.safetensors", {"id2label": json.dumps(from_one), "classes": "any"})
    said = succeed("extract", "--ckpt", "w.safetensors", *HOW, "--store", "feats.zarr").stderr
    assert "__metadata__.id2label gives no names for outputs 0, 1, 2, …" in said
    assert "so it is not used, but the data set's own order of classes" in said
    assert FeatureStore(Path("feats.zarr")).class_names == sorted(NAMES)
    Path("names").write_text("\n".join(NAMES))
    named = [*HOW, "--class-names", "names", "--store", "b.zarr"]
    assert "so it is not used, but names" in succeed("extract", "--ckpt", "w.safetensors", *named).stderr
