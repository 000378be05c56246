"""16-bit images through all phases: trained on, extracted and evaluated like their 8-bit twins."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import FOLDER, PER_CLASS, TINY, run, succeed, write_images
from made_images import png16
from PIL import Image

from extract.checkpoints.checkpoint import load_checkpoint
from extract.checkpoints.restore import restore
from extract.images.transforms import image_views
from store.reader import FeatureStore

PROGRAM_0_1 = Path(__file__).parent / "data" / "program_0_1"
MOST = 250  # of the training images; a test image is brighter


def write(root: Path, is_deep, most: int = MOST) -> Path:
    """12×12 noise, grey and coloured; 16-bit ones hold the values of the 8-bit ones, unscaled.

    8-bit images are scaled as 16-bit ones should be: `most` becomes 255.
    """
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name, n in PER_CLASS.items():
            (root / split / name).mkdir(parents=True)
            for i in range(n):
                values = rng.integers(0, most + 1, (12, 12, 1 + 2 * (i % 2)))
                values[0, 0] = most if split == "train" else 255
                path = root / split / name / f"{i}.png"
                if is_deep(i):
                    path.write_bytes(png16(values))
                    continue
                pixels = (np.minimum(values, most) * 255 / most + 0.5).astype(np.uint8)
                Image.fromarray(np.repeat(pixels, 3 // pixels.shape[2], axis=2)).save(path)
    return root


def train(root: Path, size: int, *options: object) -> Path:
    out = root.parent / f"{root.name}-{size}"
    command = ["train", "--dataset", "imagefolder", "--image-size", size, "--workers", 0, "--root", root]
    result = succeed(*command, *TINY, "--out", out, *options)
    said = [line for line in result.stderr.splitlines(keepends=True) if "16-bit" in line]
    (root.parent / f"{out.name}.notes").write_text("".join(said))
    return out / "checkpoint.pt"


def weights(ckpt: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(ckpt).state


@pytest.mark.parametrize("size", [16, 72], ids=["in memory", "files"])
def test_16_bits_train_as_8_bits_do(tmp_path, size):
    folders = {"8": lambda i: False, "mixed": lambda i: i % 3 == 0}
    if size == 16:
        folders["16"] = lambda i: True
    ckpts = {name: train(write(tmp_path / name, deep), size) for name, deep in folders.items()}
    expected = load_checkpoint(ckpts.pop("8"))
    assert (tmp_path / f"8-{size}.notes").read_text() == ""
    for name, ckpt in ckpts.items():
        found = load_checkpoint(ckpt)
        assert found.transform == expected.transform | {"white": {0: MOST}}
        assert found.history[0]["train_accuracy"] == expected.history[0]["train_accuracy"]
        for key, tensor in expected.state.items():
            assert torch.equal(found.state[key], tensor), key
        notes = (tmp_path / f"{name}-{size}.notes").read_text()
        assert (
            notes == f"tailcache: note: 16-bit images are scaled by {MOST}, the largest value in training\n"
        )


@pytest.mark.parametrize("size", [16, 72], ids=["in memory", "files"])
def test_16_bits_are_seen_as_8_bits_are_in_every_phase(tmp_path, size):
    """Test images are brighter than training images: values above white are clipped."""
    found, stores = {}, {}
    for name, deep in {"8": lambda i: False, "16": lambda i: True}.items():
        ckpt = train(write(tmp_path / name, deep), size)
        later = ["--ckpt", ckpt, "--device", "cpu"]
        found[name] = json.loads(succeed("evaluate", *later, "--workers", 0, "--json").stdout)
        store = tmp_path / f"{name}.zarr"
        succeed("extract", *later, "--workers", 0, "--store", store)
        stores[name] = FeatureStore(store)
    succeed("store", "verify", store, "--sample", 3, *later, "--workers", 0)
    assert found["16"] == found["8"]
    for array in ("train/feature_map", "val/pooled", "test/pooled"):
        eight, sixteen = (stores[name].arrays[array].read() for name in ("8", "16"))
        np.testing.assert_array_equal(sixteen, eight)


def test_training_without_bad_images_finds_the_range_too(tmp_path):
    root = write(tmp_path / "16", lambda i: True)
    (root / "train/ape/bad.png").write_bytes(b"")
    ckpt = train(root, 72, "--skip-bad-images")
    assert load_checkpoint(ckpt).transform["white"] == {0: MOST}


@pytest.mark.parametrize("size", [16, 72], ids=["in memory", "files"])
def test_images_held_out_of_training_do_not_decide(tmp_path, quiet, size):
    root = write(tmp_path / "16", lambda i: True)
    (root / "val").rename(tmp_path / "unused")
    options = ["--val-per-class", 2]
    held_out = restore(train(root, size, *options), None, quiet).dataset.val.sample_index
    bright = sorted((root / "train").rglob("*.png"))[held_out[0]]
    bright.write_bytes(png16(np.full((12, 12, 1), 4000)))
    again = load_checkpoint(train(root, size, *options, "--overwrite"))
    assert again.transform["white"] == {0: MOST}


def test_interrupted_training_goes_on_under_the_same_scale(tmp_path, monkeypatch):
    root = write(tmp_path / "16", lambda i: True)
    whole = weights(train(root, 16, "--epochs", 2))

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("extract.train.learning_rate", stop)
        out = tmp_path / "stopped"
        assert run("train", *FOLDER, "--root", root, *TINY, "--epochs", 2, "--out", out).exit_code == 130
    succeed("train", "--resume", "--out", out)
    resumed = weights(out / "checkpoint.pt")
    assert load_checkpoint(out / "checkpoint.pt").transform["white"] == {0: MOST}
    for key, tensor in whole.items():
        assert torch.equal(resumed[key], tensor), key


def test_training_that_version_0_1_began_goes_on_with_photographs_as_they_lie(tmp_path):
    made = Path(shutil.copytree(PROGRAM_0_1, tmp_path / "made"))
    exif = Image.Exif()
    exif[0x0112] = 5
    for path in (made / "images").rglob("*.png"):
        with Image.open(path) as image:
            image.save(path, exif=exif)
    succeed("train", "--resume", "--out", made / "half_phase1", "--root", made / "images", "--device", "cpu")
    whole, resumed = (weights(made / name / "checkpoint.pt") for name in ("phase1", "half_phase1"))
    for key, tensor in whole.items():  # other processors round differently
        torch.testing.assert_close(resumed[key], tensor, rtol=1e-3, atol=1e-4)


def test_16_bits_in_test_alone_are_said_to_be_scaled_by_all_of_them(tmp_path):
    root = write(tmp_path / "8", lambda i: False)
    (root / "test/ape/0.png").write_bytes(png16(np.full((12, 12, 1), 200)))
    train(root, 16)
    assert (tmp_path / "8-16.notes").read_text() == (
        "tailcache: note: test has 16-bit images, but train has none that show their range: "
        "scaled by 65,535\n"
    )


def as_in_0_1(ckpt: Path) -> Path:
    """A copy of a checkpoint with only the fields of version 0.1."""
    content = torch.load(ckpt, weights_only=True)
    for name in ("upright", "white"):
        del content["transform"][name]
    content.pop("images", None)
    torch.save(content, ckpt.with_name("old.pt"))
    return ckpt.with_name("old.pt")


@pytest.mark.parametrize("size", [16, 72], ids=["in memory", "files"])
def test_a_checkpoint_of_version_0_1_sees_what_it_was_trained_on(tmp_path, quiet, size):
    root = write_images(tmp_path / "photos")
    exif = Image.Exif()
    exif[0x0112] = 3
    pixels = np.zeros((12, 12, 3), np.uint8)
    pixels[:6] = 200
    Image.fromarray(pixels).save(root / "train/ape/0.jpg", exif=exif)
    (root / "train/ape/1.png").write_bytes(png16(np.full((12, 12, 1), 3000)))
    ckpt = train(root, size)
    assert load_checkpoint(ckpt).transform["white"] == {0: 3000}
    old = as_in_0_1(ckpt)

    seen = {}
    for path in (ckpt, old):
        restored = restore(path, None, quiet)
        train_set, transform = restored.dataset.train, restored.transform
        rows = [train_set.sample_index.tolist().index(place) for place in (0, 2)]  # 0.jpg, 0.png, 1.png
        images = [train_set.images[row] for row in rows]
        if not train_set.in_memory:
            images = [image_views(image, transform, [-1])[0] for image in images]
        photo, deep = images
        seen[path] = (bool(photo[:, 0].sum() > photo[:, -1].sum()), deep.unique().tolist())
    assert seen == {ckpt: (False, [255]), old: (True, [3000 >> 8])}

    later = ["--device", "cpu", "--workers", 0]
    says = "was trained on photographs that were not turned as EXIF says"
    assert says in succeed("evaluate", "--ckpt", old, *later).stderr
    assert says not in succeed("evaluate", "--ckpt", ckpt, *later).stderr
