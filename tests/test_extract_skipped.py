"""Images that training left out may be deleted; the search for them comes after all faster checks."""

import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from bad_input import FOLDER, TINY, refuse, run, succeed, write_images

from extract.checkpoints.checkpoint import load_checkpoint
from extract.config import DatasetConfig, NetworkConfig, TrainConfig
from extract.dataset import list_dataset
from extract.train import train
from store.errors import Interrupted
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")
BAD = ["train/ape/00bad.png", "train/bee/3bad.png", "train/bee/zbad.png", "test/cat/0.gif", "test/ape/~.png"]
CKPT = Path("phase1/checkpoint.pt")


def write_bad(root: Path, names=BAD) -> list[Path]:
    for name in names:
        (root / name).write_bytes(b"no image")
    return [root / name for name in names]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def numbers(path: str) -> dict[str, list[int]]:
    store = FeatureStore(Path(path))
    return {split: store.read(split).sample_index.tolist() for split in store.splits}


@pytest.mark.parametrize("options", [[], ["--val-per-class", 1, "--imbalance-factor", 2]])
def test_what_was_left_out_may_be_deleted(images, monkeypatch, options):
    bad = write_bad(images)
    command = ["train", *FOLDER, *TINY, "--root", images, "--skip-bad-images", *options]
    succeed(*command, "--out", CKPT.parent)
    with monkeypatch.context() as patch:
        patch.setattr("extract.train._train_epochs", interrupt)
        assert run(*command, "--out", "half").exit_code == 130
    later = ["--ckpt", CKPT, "--device", "cpu"]
    told = succeed("evaluate", *later).stdout
    succeed("extract", *later, "--store", "0.zarr")
    for i in (1, 0, 3, 2, 4):
        bad[i].unlink()
        if i in (1, 0, 4):
            assert succeed("evaluate", *later).stdout == told
    succeed("extract", *later, "--store", "5.zarr")
    assert numbers("5.zarr") == numbers("0.zarr")
    succeed("store", "verify", "0.zarr", "--sample", 99, *later)
    succeed("train", "--resume", "--out", "half")
    assert load_checkpoint(Path("half/checkpoint.pt")).dataset["skipped"] == tuple(sorted(BAD))
    (images / "test/bee/2.png").unlink()
    refuse("evaluate", *later, says=["1 missing (the first is test/bee/2.png)"])


def test_what_was_left_out_is_found_in_a_copy_of_another_form():
    root = write_images(Path("images"), {"ape": 3, "zä": 3})
    write_bad(root, ["train/zä/ä.png", "train/zä/00.png", "test/ape/0.gif"])
    succeed("train", *FOLDER, *TINY, "--root", root, "--skip-bad-images", "--out", CKPT.parent)
    later = ["evaluate", "--ckpt", CKPT, "--device", "cpu", "--split", "train"]
    told = succeed(*later).stdout
    copy = Path(shutil.copytree(root, "copy"))
    for path in sorted(copy.rglob("*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))
    assert succeed(*later, "--root", copy).stdout == told
    next(copy.glob("train/z*/00.png")).unlink()
    (copy / "test/ape/0.gif").unlink()
    assert succeed(*later, "--root", copy).stdout == told
    next(path for path in copy.glob("train/z*/*") if path.name[0] == "a").unlink()
    assert succeed(*later, "--root", copy).stdout == told


def val_is_there(root: Path) -> None:
    write_images(root, splits=["val"])


def of_one_name(root: Path) -> None:
    write_images(root, {unicodedata.normalize(form, "bête"): 4 for form in ("NFC", "NFD")})


def nothing(root: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (val_is_there, ["--val-per-class", 1], "val: exists, so --val-per-class must be 0"),
        (nothing, ["--val-per-class", 4], "--val-per-class 4: class 2 has 4 training images"),
        (nothing, ["--imbalance-factor", 0.5], "--imbalance-factor 0.5: must be 1 (balanced) or more"),
        (of_one_name, [], "are the same name in two Unicode forms"),
    ],
    ids=["val", "too many", "factor", "names"],
)
def test_no_image_is_read_before_what_the_listing_tells(images, monkeypatch, change, options, says):
    change(images)
    monkeypatch.setattr("extract.sources.skipped.find_unreadable", lambda *_: pytest.fail("images are read"))
    command = ["train", *FOLDER, *TINY, "--root", images, "--skip-bad-images", "--out", "phase1"]
    refuse(*command, *options, says=[says])


@pytest.fixture
def config(images) -> TrainConfig:
    dataset = DatasetConfig("imagefolder", str(images), skip_bad_images=True)
    network = NetworkConfig("resnet8", width=2)
    return TrainConfig("run", network, dataset, image_size=8, epochs=1, batch_size=8, device="cpu")


def begin(config: TrainConfig, quiet, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("extract.train._train_epochs", interrupt)
        with pytest.raises(Interrupted):
            train(config, quiet)


def test_a_resumed_run_takes_over_what_was_left_out(config, images, quiet, monkeypatch):
    write_bad(images)
    begin(config, quiet, monkeypatch)
    checkpoint = train(replace(config, resume=True), quiet)
    assert checkpoint.dataset["skipped"] == tuple(sorted(BAD))
    assert checkpoint.class_counts == [8, 6, 4]


def test_a_resumed_run_takes_over_the_order_of_its_tail(config, quiet, monkeypatch):
    """As version 0.1 chose it: bees keep more images than dogs, of which there were more."""
    root = write_images(Path("more"), {"ape": 4, "bee": 5, "dog": 12})
    dataset = replace(config.dataset, root=str(root), imbalance_factor=3.0)
    assert list_dataset(dataset, quiet).class_counts.tolist() == [1, 2, 4]
    begun = replace(config, dataset=replace(dataset, tail_order="class index"))
    begin(begun, quiet, monkeypatch)
    checkpoint = train(replace(config, dataset=dataset, resume=True), quiet)
    assert checkpoint.dataset["tail_order"] == "class index"
    assert checkpoint.class_counts == [4, 2, 1]
