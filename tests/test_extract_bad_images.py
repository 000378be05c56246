"""Image folders that cannot be used, named in the error, and single images that cannot be read."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from bad_input import FEW_CLASSES, FOLDER, QUICK, TINY, refuse, run, succeed, write_images
from made_images import tiff16
from PIL import Image, features

from extract.checkpoints.checkpoint import load_checkpoint
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def no_root(root: Path) -> None:
    shutil.rmtree(root)


def root_is_a_file(root: Path) -> None:
    shutil.rmtree(root)
    root.write_text("no folder")


def empty_root(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()


def no_train(root: Path) -> None:
    shutil.rmtree(root / "train")


def no_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def empty_train(root: Path) -> None:
    shutil.rmtree(root / "train")
    (root / "train").mkdir()


def empty_test(root: Path) -> None:
    shutil.rmtree(root / "test")
    (root / "test").mkdir()


def one_class(root: Path) -> None:
    for name in ("bee", "cat"):
        shutil.rmtree(root / "train" / name)


def empty_train_class(root: Path) -> None:
    shutil.rmtree(root / "train" / "bee")
    (root / "train" / "bee").mkdir()


def empty_test_class(root: Path) -> None:
    shutil.rmtree(root / "test" / "bee")
    (root / "test" / "bee").mkdir()


def class_of_text_files(root: Path) -> None:
    empty_train_class(root)
    (root / "train" / "bee" / "notes.txt").write_text("no image")


def unknown_test_class(root: Path) -> None:
    write_images(root, {"dog": 1}, ["test"])


def unknown_val_class(root: Path) -> None:
    write_images(root, {"dog": 1}, ["val"])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (no_root, ["{root}: no such folder", "--root must hold"]),
        (root_is_a_file, ["{root}: no such folder", "--root must hold"]),
        (empty_root, ["{root}: has no train/ folder", "found nothing", "expected train/<class>/<image>"]),
        (no_train, ["{root}: has no train/ folder", "found test", "expected train/<class>/<image>"]),
        (no_test, ["{root}: has no test/ folder", "found train", "expected test/<class>/<image>"]),
        (empty_train, ["{root}/train: at least two class folders are needed", "found none"]),
        (one_class, ["{root}/train: at least two class folders are needed", "found ape"]),
        (empty_test, ["{root}/test: holds no class folders", "expected test/<class>/<image>"]),
        (empty_train_class, ["{root}/train/bee: holds no images", ".png", "add some or remove it"]),
        (empty_test_class, ["{root}/test/bee: holds no images", ".png", "add some or remove it"]),
        (class_of_text_files, ["{root}/train/bee: holds no images", ".png", "add some or remove it"]),
        (unknown_test_class, ["{root}/test/dog", "'dog' is not among the 3 classes", "rename or remove"]),
        (unknown_val_class, ["{root}/val/dog", "'dog' is not among the 3 classes", "rename or remove"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_image_folder_is_refused(images: Path, damage: Callable[[Path], None], says: list[str]) -> None:
    damage(images)
    says = [fragment.format(root=images) for fragment in says]
    refuse("train", *FOLDER, *TINY, "--root", images, "--out", "phase1", says=says)


def truncated_jpeg(path: Path) -> Path:
    path = path.with_suffix(".jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:700])
    return path


def truncated_png(path: Path) -> Path:
    path.write_bytes(next(path.parent.glob("*.png")).read_bytes()[:100])
    return path


def text_named_png(path: Path) -> Path:
    path.write_text("This is no image.\n")
    return path


def zero_bytes(path: Path) -> Path:
    path.touch()
    return path


def tiff_with_a_place_in_fractions(path: Path) -> Path:
    """Pillow's reader ends in a TypeError."""
    path, content = path.with_suffix(".tif"), bytearray(tiff16(np.zeros((12, 12, 1)), "<", compressed=False))
    at = content.index(struct.pack("<HH", 273, 4))
    content[at + 2] = 5
    path.write_bytes(content)
    return path


def avif_without_its_item(path: Path) -> Path:
    """Pillow's reader ends in a RuntimeError."""
    path = path.with_suffix(".avif")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"pitm\0\0\0\0\0\1", b"pitm\0\0\0\0\0\7"))
    assert path.read_bytes() != content
    return path


BAD_IMAGES = [truncated_jpeg, truncated_png, text_named_png, zero_bytes, tiff_with_a_place_in_fractions]
BAD_IMAGES += [avif_without_its_item] if features.check("avif") else []


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("make_bad", BAD_IMAGES)
def test_unreadable_image_is_named(images: Path, make_bad: Callable[[Path], Path], split: str) -> None:
    bad = make_bad(images / split / "bee" / "bad.png")
    says = [f"{bad}: not a readable image", "fix or remove it", "--skip-bad-images"]
    refuse("train", *FOLDER, *TINY, "--root", images, "--out", "phase1", says=says)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_unreadable_large_image_is_named_before_training(images: Path, split: str) -> None:
    """Images above 64 pixels are decoded during training, by worker processes, perhaps hours later."""
    write_images(images, splits=["val"])
    bad = [make_bad(images / split / "bee" / f"bad{i}.png") for i, make_bad in enumerate(BAD_IMAGES)]
    large = ["--dataset", "imagefolder", "--image-size", 72, "--workers", 1]
    command = ["train", *large, *TINY, "--root", images, "--out", "phase1"]
    refuse(
        *command, says=[f"{bad[0]}: not a readable image", "--skip-bad-images", f"{len(bad) - 1} more cannot"]
    )
    succeed(*command, "--skip-bad-images")


def test_large_image_that_went_bad_since_training_is_named(images: Path) -> None:
    large = ["--dataset", "imagefolder", "--image-size", 72]
    succeed("train", *large, *TINY, "--root", images, "--out", "phase1")
    bad = text_named_png(images / "test" / "bee" / "0.png")
    for workers in (0, 1):
        later = ["--ckpt", "phase1/checkpoint.pt", "--workers", workers, "--device", "cpu"]
        refuse("evaluate", *later, says=[f"{bad}: holds another image than when", "put that one back"])
    bad.unlink()
    refuse("evaluate", *later, says=["1 missing (the first is test/bee/0.png)", "put them back"])


@pytest.mark.parametrize("store", ["feats.zarr", "feats.h5"])
def test_extraction_goes_on_once_the_image_is_mended(images: Path, store: str) -> None:
    large = ["--dataset", "imagefolder", "--image-size", 72]
    succeed("train", *large, *TINY, "--root", images, "--out", "phase1")
    command = ["extract", "--ckpt", "phase1/checkpoint.pt", "--workers", 0, "--device", "cpu", "--store"]
    succeed(*command, f"whole{store}")
    good = (images / "test" / "bee" / "0.png").read_bytes()
    bad = text_named_png(images / "test" / "bee" / "0.png")
    result = run(*command, store)
    assert result.exit_code == 2
    assert f"{bad}: holds another image than when" in result.stderr
    assert not Path(store).exists()
    refuse(*command, store, says=[f"{store}.unfinished: is an unfinished store; pass --resume to continue"])
    refuse(*command, store, "--resume", "--precision", "bf16", says=["another precision (fp32)", "(bf16)"])
    bad.write_bytes(good)
    succeed(*command, store, "--resume")
    assert not Path(f"{store}.unfinished").exists()
    whole, resumed = FeatureStore(Path(f"whole{store}")), FeatureStore(Path(store))
    for name, array in whole.arrays.items():
        if name != "checksum/metadata":  # of the time of extraction, among others
            np.testing.assert_array_equal(array.read(), resumed.arrays[name].read(), strict=True)
    succeed(*command, store, "--resume")  # complete already


def test_names_that_are_not_utf8(images: Path) -> None:
    command = ["train", *FOLDER, *TINY, "--root", images, "--out", "phase1"]
    shutil.copy(images / "train" / "bee" / "0.png", os.fsencode(images / "train" / "bee") + b"/caf\xe9.png")
    refuse(*command, says=["caf\\xe9.png", "not UTF-8; rename it"])
    os.rename(images / "train" / "bee", os.fsencode(images / "train") + b"/caf\xe9")
    os.rename(images / "test" / "bee", os.fsencode(images / "test") + b"/caf\xe9")
    refuse(*command, says=["train/caf\\xe9/", "not UTF-8; rename it"])


@pytest.mark.parametrize("image_size", [16, 72])
def test_skip_bad_images_lists_them_and_later_phases_go_on(images: Path, image_size: int) -> None:
    bad = [make_bad(images / "train" / "bee" / f"bad{i}.png") for i, make_bad in enumerate(BAD_IMAGES)]
    bad += [zero_bytes(images / split / "cat" / "bad.png") for split in ("train", "test")]
    size = ["--dataset", "imagefolder", "--image-size", image_size, "--workers", 0]
    result = succeed("train", *size, *TINY, "--root", images, "--out", "phase1", "--skip-bad-images")
    names = sorted(path.relative_to(images).as_posix() for path in bad)
    told = f"{', '.join(names[:5])}, … (phase1/config.json lists all {len(names)})"
    assert result.stderr.endswith(f"note: left out because they are unreadable: {told}\n")
    assert json.loads(Path("phase1/config.json").read_text())["dataset"]["skipped"] == names
    checkpoint = load_checkpoint(Path("phase1/checkpoint.pt"))
    assert checkpoint.class_counts == [8, 6, 4]

    later = ["--ckpt", "phase1/checkpoint.pt", "--device", "cpu", "--workers", 0]
    succeed("extract", *later, "--store", "feats.zarr")
    assert zarr.open_group("feats.zarr", mode="r")["train/label"].shape == (18,)
    assert "of 18 correct" in succeed("evaluate", *later).stdout
    succeed("finetune", "--store", "feats.zarr", "--out", "fsa", *QUICK, *FEW_CLASSES)
    succeed("evaluate", "--ckpt", "fsa/checkpoint.pt", "--device", "cpu", "--workers", 0)


@pytest.mark.parametrize(
    ("emptied", "where"), [("train/bee", "train/bee"), ("test/*", "test")], ids=["class", "split"]
)
def test_skip_bad_images_leaves_something(images: Path, emptied: str, where: str) -> None:
    for path in images.glob(f"{emptied}/*.png"):
        path.write_bytes(b"")
    command = ["train", *FOLDER, *TINY, "--root", images, "--out", "phase1", "--skip-bad-images"]
    refuse(*command, says=[images / where, "no readable image is left"])


@pytest.mark.parametrize("command", ["extract", "evaluate"])
def test_images_that_changed_since_training_are_refused(small_ckpt: Path, images: Path, command: str) -> None:
    (images / "train" / "bee" / "5.png").unlink()
    says = [small_ckpt, images, "1 missing (the first is train/bee/5.png)", "point --root at the data set"]
    refuse(command, "--ckpt", small_ckpt, "--root", images, "--device", "cpu", says=says)


def test_images_that_moved_are_found_with_root(small_root: Path, images: Path) -> None:
    succeed("train", *FOLDER, *TINY, "--root", images, "--out", "phase1")
    shutil.rmtree(images)
    later = ["evaluate", "--ckpt", "phase1/checkpoint.pt", "--device", "cpu"]
    refuse(*later, says=[f"{images}: no such folder", "--root"])
    succeed(*later, "--root", small_root)
