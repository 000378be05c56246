"""An image that differs from the one in training is named, whatever its file name."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from bad_input import TINY, refuse, run, succeed
from PIL import Image

from extract.checkpoints.checkpoint import load_checkpoint
from extract.proof.record import recorded_images

pytestmark = pytest.mark.usefixtures("in_tmp_path")
SIZES = [16, 72]  # decoded when listed, and by workers when needed
OTHER_STORE = {"evaluate": [], "extract": ["--store", "other.zarr"]}
ROOT, PHASE1, HALF = Path("images"), Path("phase1/checkpoint.pt"), Path("half")


@pytest.fixture(scope="module", params=SIZES)
def made(request, small_root, tmp_path_factory) -> Path:
    """A finished training and one interrupted in its first epoch, beside their images."""
    made = tmp_path_factory.mktemp("made")
    shutil.copytree(small_root, made / ROOT)
    command = [
        "train",
        "--image-size",
        request.param,
        "--dataset",
        "imagefolder",
        "--root",
        made / ROOT,
        *TINY,
    ]
    succeed(*command, "--workers", 0, "--out", made / PHASE1.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("extract.train._train_epochs", interrupt)
        assert run(*command, "--workers", 0, "--out", made / HALF).exit_code == 130
    return made


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def here(made, tmp_path) -> Path:
    """A copy of it in the working directory; its images are elsewhere unless `--root` names these."""
    return Path(shutil.copytree(made, tmp_path, dirs_exist_ok=True))


def exchange(split: str) -> None:
    """Swap the images of two classes, as many as there are, under the same names."""
    for path in sorted((ROOT / split / "bee").iterdir()):
        other = ROOT / split / "ape" / path.name
        mine, theirs = path.read_bytes(), other.read_bytes()
        path.write_bytes(theirs)
        other.write_bytes(mine)


@pytest.mark.parametrize("command", ["evaluate", "extract"])
def test_an_unfinished_training_is_told(here, command):
    ckpt = ["--ckpt", HALF / "checkpoint.pt", "--root", ROOT, "--device", "cpu", "--workers", 0]
    said = succeed(command, *ckpt).stderr
    assert "half/checkpoint.pt: its training stopped early (epoch 0 of 1)" in said
    assert "`train --resume --out half` finishes it" in said
    assert "not finished" not in succeed(*later(command, "--workers", 0, *OTHER_STORE[command])).stderr


def later(command: str, *more: object) -> list[object]:
    return [command, "--ckpt", PHASE1, "--root", ROOT, "--device", "cpu", *more]


@pytest.mark.parametrize("workers", [0, 2])
def test_exchanged_images_are_named(here, workers):
    exchange("test")
    says = [
        "images/test/ape/0.png: holds another image than when the network was trained",
        "put that one back",
    ]
    refuse(*later("evaluate", "--workers", workers), says=says)
    result = run(*later("extract", "--workers", workers, "--store", "feats.zarr"))
    assert result.exit_code == 2
    assert "test/ape/0.png: holds another image" in result.stderr
    assert not Path("feats.zarr").exists()


def test_a_store_is_compared_with_its_own_images_only(here):
    succeed(*later("extract", "--workers", 0, "--store", "feats.zarr"))
    verify = ["store", "verify", "feats.zarr", "--sample", 99, *later("", "--workers", 0)[1:]]
    succeed(*verify)
    exchange("test")
    refuse(*verify, says=["images/test/ape/0.png: holds another image"])


def test_images_in_memory_are_named_by_their_place(phase1):
    content = torch.load(phase1, weights_only=True)
    content["images"]["test"]["digest"][7] += 1
    torch.save(content, "changed.pt")
    says = ["digits holds now: 1 changed (the first is image ", "train again"]
    refuse("evaluate", "--ckpt", "changed.pt", "--device", "cpu", says=says)
    content["images"]["test"]["digest"] = content["images"]["test"]["digest"][1:]
    torch.save(content, "changed.pt")
    refuse("evaluate", "--ckpt", "changed.pt", "--device", "cpu", says=["digits holds now"])


def test_a_resumed_training_reads_no_other_images(here):
    exchange("train")
    resume = ["train", "--resume", "--out", HALF, "--root", ROOT, "--workers", 0]
    result = run(*resume)
    assert result.exit_code == 2
    assert "images/train/" in result.stderr
    assert "holds another image" in result.stderr
    exchange("train")
    succeed(*resume)


def test_another_data_set_of_the_same_names_is_none(here):
    rng = np.random.default_rng(1)
    for path in ROOT.rglob("*.png"):
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(path)
    refuse(*later("evaluate", "--workers", 0), says=["images/test/ape/0.png: holds another image", "--root"])


def test_only_the_split_that_is_evaluated_is_read(here):
    for path in ROOT.glob("train/*/*.png"):
        path.write_bytes(b"")
    succeed(*later("evaluate", "--workers", 0))
    refuse(
        *later("evaluate", "--workers", 0, "--split", "train"), says=["images/train/", "holds another image"]
    )


def missing() -> None:
    (ROOT / "test/bee/3.png").unlink()


def new() -> None:
    shutil.copy(ROOT / "test/bee/3.png", ROOT / "test/bee/33.png")


def renamed() -> None:
    (ROOT / "test/bee/3.png").rename(ROOT / "test/bee/33.png")


def moved() -> None:
    (ROOT / "train/bee/3.png").rename(ROOT / "train/ape/33.png")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (missing, "1 missing (the first is test/bee/3.png);"),
        (new, "1 new (the first is test/bee/33.png);"),
        (renamed, ": 1 moved (the first from test/bee/3.png to test/bee/33.png);"),
        (moved, ": 1 moved (the first from train/bee/3.png to train/ape/33.png);"),
    ],
)
def test_a_missing_new_or_moved_image_is_named(here, change: Callable[[], None], says: str):
    change()
    says = [says, "was trained on other images", "put them back", "--root", "train again"]
    refuse(*later("evaluate"), says=[PHASE1, *says])
    refuse(*later("extract"), says=[PHASE1, *says])
    refuse("train", "--resume", "--out", HALF, "--root", ROOT, says=[HALF, *says])


def test_an_image_added_to_a_long_tail_is_noticed(images):
    train = [
        "train",
        "--dataset",
        "imagefolder",
        "--image-size",
        16,
        "--root",
        images,
        *TINY,
        "--out",
        "phase1",
    ]
    succeed(*train, "--imbalance-factor", 2)
    evaluate = ["evaluate", "--ckpt", PHASE1, "--device", "cpu"]
    new = Path(shutil.copy(images / "train/ape/0.png", images / "train/ape/00.png"))
    says = [
        "was trained on other images",
        "train/ape has 9 images to draw from, 8 then, so that the long tail",
    ]
    refuse(*evaluate, says=[*says, "would now take", "(the first is train/ape/", "back as they were"])
    new.rename(images / "train/cat/x.png")  # the last of its class, and not drawn
    says = ["train/cat has 5 images to draw from, 4 then"]
    print(refuse(*evaluate, says=says))
    shutil.copy(images / "train/cat/0.png", images / "train/bee/x.png")
    refuse(*evaluate, says=["train/bee has 7 images to draw from, 6 then (and 1 more changed)"])
    (images / "train/bee/x.png").unlink()
    (images / "train/cat/x.png").unlink()
    succeed(*evaluate)


def test_a_checkpoint_keeps_names_and_digests_as_tensors(made):
    checkpoint = load_checkpoint(made / PHASE1)
    for split, recorded in recorded_images(checkpoint, "").items():
        names = [str(path.relative_to(made / ROOT)).encode() for path in (made / ROOT / split).rglob("*.png")]
        assert sorted(recorded.names) == sorted(names)
        for name, digest in zip(recorded.names, recorded.digest, strict=True):
            content = (made / ROOT / name.decode()).read_bytes()
            assert digest.tobytes().hex() == xxhash.xxh3_128_hexdigest(content)
        assert all(isinstance(kept, torch.Tensor) for kept in checkpoint.images[split].values())


def damage_digest(images: dict) -> None:
    images["test"]["digest"] = images["test"]["digest"][:, :8]


def damage_name(images: dict) -> None:
    images["test"]["name"][5:] = 0


def no_counts(images: dict) -> None:
    images["train"]["per_class"] = images["train"]["per_class"].float()


def drop_digest(images: dict) -> None:
    del images["test"]["digest"]


def other_length(images: dict) -> None:
    images["test"]["digest"] = images["test"]["digest"][1:]


@pytest.mark.parametrize("size", SIZES)
def test_skipped_images_are_looked_for_once(images, monkeypatch, size):
    """An image that cannot be read any more is named, and not silently left out."""
    train = [
        "train",
        "--dataset",
        "imagefolder",
        "--image-size",
        size,
        "--root",
        images,
        *TINY,
        "--workers",
        0,
    ]
    with monkeypatch.context() as patch:
        patch.setattr("extract.train._train_epochs", interrupt)
        assert run(*train, "--skip-bad-images", "--out", HALF).exit_code == 130
    path = next((images / "test/bee").glob("*.png"))
    content = path.read_bytes()
    path.write_bytes(content[:50])
    evaluate = ["evaluate", "--ckpt", HALF / "checkpoint.pt", "--device", "cpu", "--workers", 0]
    refuse(*evaluate, says=[f"{path}: holds another image"])
    path.write_bytes(content)
    monkeypatch.setattr("extract.dataset.find_unreadable", interrupt)
    monkeypatch.setattr("extract.sources.skipped.find_unreadable", interrupt)
    succeed(*evaluate)
    succeed("train", "--resume", "--out", HALF, "--workers", 0)
    assert load_checkpoint(HALF / "checkpoint.pt").dataset["skip_bad_images"]


def test_an_image_that_is_no_longer_taken_for_one_is_named(images):
    path = images / "test/bee/photograph"
    path.write_bytes((images / "test/bee/0.png").read_bytes() + b"!")
    train = ["train", "--dataset", "imagefolder", "--image-size", 16, "--root", images, *TINY]
    succeed(*train, "--out", "phase1")
    path.write_text("no image")
    says = ["1 no longer taken for images (the first is test/bee/photograph)", "put them back"]
    refuse("evaluate", "--ckpt", PHASE1, "--device", "cpu", says=says)


@pytest.mark.parametrize("damage", [damage_digest, damage_name, drop_digest, other_length, no_counts])
def test_damaged_digests_are_refused(here, damage):
    content = torch.load(PHASE1, weights_only=True)
    damage(content["images"])
    torch.save(content, PHASE1)
    refuse(*later("evaluate"), says=[PHASE1, "its record of the images is damaged", "train again"])
