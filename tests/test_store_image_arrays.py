"""Names and digests of images in a store: optional arrays of format version 1."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xxhash
from bad_input import FEW_CLASSES, QUICK, run, succeed
from made_store import SIZES, made_plan, made_rows, write_made
from rich.progress import Progress

from extract import dump
from store.arrays.image_names import image_digests, image_names, names_as_bytes
from store.errors import StoreError
from store.reader import FeatureStore
from store.verify import verify
from store.writer import StoreWriter

pytestmark = pytest.mark.usefixtures("in_tmp_path")
QUIET = Progress(disable=True)
OF_IMAGES = ("image_digest", "image_name")


def extraction(ckpt: Path, store: str, *more: object) -> list[object]:
    return ["extract", "--ckpt", ckpt, "--store", store, "--views", 2, "--device", "cpu", *more]


@pytest.mark.parametrize("path", ["s.zarr", "s.h5"])
def test_every_row_says_which_image_it_is_of(small_ckpt, small_root, path):
    succeed(*extraction(small_ckpt, path))
    store = FeatureStore(Path(path))
    for split in store.splits:
        rows, names, digests = store.read(split), image_names(store, split), image_digests(store, split)
        assert len(names) == len(digests) == len(rows.label)
        listing = sorted(p.relative_to(small_root).as_posix() for p in (small_root / split).rglob("*.png"))
        for row, name in enumerate(names):
            assert name == listing[rows.sample_index[row]]
            content = (small_root / name).read_bytes()
            assert digests[row].tobytes().hex() == xxhash.xxh3_128_hexdigest(content)
    assert list(verify(store, QUIET)) == []
    succeed("store", "verify", path, "--sample", 3, "--ckpt", small_ckpt, "--device", "cpu")


def test_images_in_no_file_have_digests_alone(feature_store):
    store = FeatureStore(feature_store)
    assert image_names(store, "test") is None
    assert image_digests(store, "test").shape == (300, 16)
    assert len(np.unique(image_digests(store, "test"), axis=0)) > 290  # a few digits are equal to the pixel


def test_a_conversion_carries_them(small_store):
    succeed("store", "convert", small_store, "s.h5")
    before, after = FeatureStore(small_store), FeatureStore(Path("s.h5"))
    for split in before.splits:
        for name in OF_IMAGES:
            np.testing.assert_array_equal(
                before.arrays[f"{split}/{name}"].read(), after.arrays[f"{split}/{name}"].read(), strict=True
            )
    assert list(verify(after, QUIET)) == []


def test_an_extraction_that_was_begun_without_them_goes_on_without_them(small_ckpt, monkeypatch):
    """As version 0.1 started it."""
    axes = dump.axis_lengths
    write = StoreWriter.write

    def interrupted(writer, split, start, *rows, **named) -> None:
        if split == "test":
            raise KeyboardInterrupt
        write(writer, split, start, *rows, **named)

    def of_version_0_1(*arguments) -> dict:
        return {split: {axis: n[axis] for axis in "NHWC"} for split, n in axes(*arguments).items()}

    with monkeypatch.context() as patch:
        patch.setattr(dump, "axis_lengths", of_version_0_1)
        patch.setattr(StoreWriter, "write", interrupted)
        assert run(*extraction(small_ckpt, "s.zarr")).exit_code == 130
    succeed(*extraction(small_ckpt, "s.zarr", "--resume"))
    store = FeatureStore(Path("s.zarr"))
    assert list(verify(store, QUIET)) == []
    assert not [name for name in store.arrays if name.rpartition("/")[2] in OF_IMAGES]
    succeed("finetune", "--store", "s.zarr", "--out", "run", *QUICK, *FEW_CLASSES)
    assert "image" not in pd.read_csv("run/predictions.csv")


def with_images(change) -> FeatureStore:
    """A made store, two rows of which show one image, after a change of its names and digests."""
    sizes = {split: axes | {"D": 16, "T": 6} for split, axes in SIZES.items()}
    rows = made_rows(sizes)
    for split, axes in sizes.items():
        names = np.array([f"é/{row:03}".encode() for row in range(axes["N"])])
        rows[f"{split}/image_name"] = names_as_bytes(names).copy()
        rows[f"{split}/image_digest"] = np.arange(axes["N"] * 16, dtype=np.uint8).reshape(-1, 16)
    change(rows)
    shutil.rmtree("made.zarr", ignore_errors=True)
    write_made(Path("made.zarr"), made_plan(sizes), rows)
    return FeatureStore(Path("made.zarr"))


def one_name_twice(rows) -> None:
    rows["test/image_name"][4] = rows["test/image_name"][5]


def no_name(rows) -> None:
    rows["test/image_name"][4] = 0


def no_utf8(rows) -> None:
    rows["test/image_name"][4, 0] = 0xFF


def two_digests(rows) -> None:
    rows["train/sample_index"][1::2] = rows["train/sample_index"][::2]
    rows["train/view"][1::2] = 1
    rows["train/image_name"][1::2] = rows["train/image_name"][::2]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (one_name_twice, "test/image_name: does not have one name for each image"),
        (no_name, "test/image_name: does not have one name for each image"),
        (no_utf8, "test/image_name: holds a name that is not UTF-8"),
        (two_digests, "train/image_digest: differs between views of one image"),
    ],
)
def test_names_and_digests_that_cannot_be(wrong, says):
    assert list(verify(with_images(lambda rows: None), QUIET)) == []
    assert says in map(str, verify(with_images(wrong), QUIET))


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(StoreError, match=r"made.zarr: test/image_name holds a name that is not UTF-8"):
        image_names(with_images(no_utf8), "test")


@pytest.mark.figures
def test_predictions_name_the_image(small_store, small_root):
    succeed("finetune", "--store", small_store, "--out", "run", *QUICK, *FEW_CLASSES)
    predictions = pd.read_csv("run/predictions.csv")
    classes = ["ape", "bee", "cat"]
    for row in predictions.itertuples():
        assert (small_root / row.image).is_file()
        assert row.image.split("/")[:2] == ["test", classes[row.label]]
    assert predictions["image"].is_unique
    succeed("analyze", "run", "--out", "report")


def test_arrays_of_another_shape_are_refused():
    sizes = {split: axes | {"D": 8} for split, axes in SIZES.items()}
    rows = made_rows(sizes) | {
        f"{split}/image_digest": np.zeros((axes["N"], 8), np.uint8) for split, axes in sizes.items()
    }
    write_made(Path("made.zarr"), made_plan(sizes), rows)
    with pytest.raises(StoreError, match=r"train/image_digest is uint8 \(44, 8\), expected .* \(44, 16\)"):
        FeatureStore(Path("made.zarr"))
