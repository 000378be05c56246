"""Mirroring of training images, and the hint about classes that are each other's mirror image."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import TINY, refuse, run, succeed
from PIL import Image
from sklearn.datasets import load_digits

from extract.checkpoints.checkpoint import load_checkpoint
from extract.config import DatasetConfig
from extract.dataset import Dataset, load_dataset
from extract.device import Compute
from extract.images.image_set import ImageSet
from extract.images.transforms import Transform
from extract.training.mirror import CONFUSED, MOST_PAIRS, confused_pairs, note_mirrored_pairs

pytestmark = pytest.mark.usefixtures("in_tmp_path")
COMPUTE = Compute(torch.device("cpu"), "fp32", 128, 0)
SIDE = 16


def made_like(shape: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, SIDE, SIDE) photographs of a shape: lighting, position and background differ."""
    coarse = rng.normal(0, 20, (n, 4, 4)).repeat(SIDE // 4, 1).repeat(SIDE // 4, 2)
    placed = np.stack([np.roll(shape, rng.integers(-1, 2, 2), (0, 1)) for _ in range(n)])
    light = rng.uniform(60, 130, (n, 1, 1))
    return np.clip(70 + light * placed + coarse + rng.normal(0, 10, placed.shape), 0, 255).astype(np.uint8)


def arrow() -> np.ndarray:
    """An arrow to the right."""
    shape = np.zeros((SIDE, SIDE))
    shape[7:9, 2:14] = 1
    for k in range(5):
        shape[7 - k : 9 + k, 13 - k] = 1
    return shape


def bars(*rows: int) -> np.ndarray:
    """The same when mirrored."""
    shape = np.zeros((SIDE, SIDE))
    shape[list(rows), 3:13] = 1
    return shape


def made_set(images: list[np.ndarray]) -> ImageSet:
    """A data set of grey images (N, H, W), one class after the other."""
    pixels = torch.from_numpy(np.concatenate(images))[:, None].expand(-1, 3, -1, -1).contiguous()
    label = np.repeat(np.arange(len(images)), [len(of_class) for of_class in images])
    return ImageSet(pixels, label, np.arange(len(label)))


def hints(caplog, images: list[np.ndarray], predicted: np.ndarray | None = None) -> list[str]:
    """The notes on a data set whose network confuses every class with every other, or predicts this."""
    train = made_set(images)
    names = [f"c{i}" for i in range(len(images))]
    n = len(images)
    test = ImageSet(torch.empty(n * n, 0), np.repeat(np.arange(n), n), np.arange(n * n))
    test = test if predicted is None else train
    predicted = np.tile(np.arange(n), n) if predicted is None else predicted
    dataset = Dataset(DatasetConfig(), names, train, None, test, "")
    caplog.clear()
    note_mirrored_pairs(dataset, predicted, Transform(images[0].shape[-1]), COMPUTE)
    return [record.getMessage() for record in caplog.records]


@pytest.fixture(autouse=True)
def _few_mistakes_will_do(monkeypatch):
    monkeypatch.setattr("extract.training.mirror.MISTAKEN", 1)
    monkeypatch.setattr("extract.training.mirror.MOST_PAIRS", 1000)


def test_arrows_to_the_left_and_to_the_right_are_named(caplog):
    """However rare one of them is, and whatever the other classes."""
    for n_left in (200, 40):
        rng = np.random.default_rng(0)
        shapes = [(arrow(), 200), (bars(3, 9), 100), (arrow()[:, ::-1], n_left), (bars(5, 12), 30)]
        found = hints(caplog, [made_like(shape, n, rng) for shape, n in shapes])
        assert len(found) == 1
        assert "c0 and c2 (50 % of their test images); a network" in found[0]
        assert "train with --no-flip" in found[0]


def test_mirrored_pairs_that_are_not_confused_are_left_alone(caplog):
    rng = np.random.default_rng(0)
    images = [made_like(shape, 60, rng) for shape in (arrow(), arrow()[:, ::-1])]
    right = np.repeat([0, 1], 60)
    assert not hints(caplog, images, right)
    some = np.where(np.arange(120) % 10 == 0, 1 - right, right)  # a tenth
    assert not hints(caplog, images, some)
    assert hints(caplog, images, np.zeros(120, np.int64))  # one is always taken for the other


def test_symmetric_classes_are_no_pairs(caplog):
    rng = np.random.default_rng(0)
    shapes = [bars(3, 9), bars(4, 9), bars(7), bars(2, 7, 12), bars(7)]
    assert not hints(caplog, [made_like(shape, 100, rng) for shape in shapes])


def test_one_shape_twice_is_no_pair(caplog):
    """Two classes that look alike without mirroring: mirroring is not the cause."""
    rng = np.random.default_rng(0)
    assert not hints(caplog, [made_like(arrow(), 100, rng) for _ in range(4)])


def test_a_shape_and_half_of_its_mirror_image_are_no_pair(caplog):
    rng = np.random.default_rng(0)
    cut = arrow()[:, ::-1].copy()
    cut[:7] = 0
    assert not hints(caplog, [made_like(shape, 200, rng) for shape in (arrow(), cut)])


def test_what_half_of_the_images_show_is_no_proof(caplog):
    """Consecutive images may show the same thing: a class of two things, one of them an arrow."""
    rng = np.random.default_rng(0)
    both = [(arrow(), bars(3, 9)), (arrow()[:, ::-1], bars(3, 9))]
    images = [[made_like(shape, 100, rng) for shape in shapes] for shapes in both]
    assert not hints(caplog, [np.concatenate(of_class) for of_class in images])
    mixed = [np.stack(of_class, axis=1).reshape(-1, SIDE, SIDE) for of_class in images]  # in turn
    assert hints(caplog, mixed)


@pytest.mark.parametrize("cells", [2, 4, 16])
def test_noise_makes_no_pairs(caplog, cells):
    """Fine and coarse noise, in few images and in many."""
    rng = np.random.default_rng(cells)
    for n in (20, 50, 100):
        noise = rng.integers(0, 256, (10 * n, cells, cells), np.uint8)
        noise = noise.repeat(SIDE // cells, 1).repeat(SIDE // cells, 2)
        assert not hints(caplog, np.split(noise, 10))


@pytest.mark.parametrize("n", [20, 60, 170])
def test_digits_make_no_pairs(caplog, n):
    """A mirrored 2 is nearly a 5, but is not one."""
    data = load_digits()
    images = (data.images * 15).astype(np.uint8).repeat(4, 1).repeat(4, 2)
    assert not hints(caplog, [images[data.target == c][:n] for c in range(10)])


def test_too_few_images_say_nothing(caplog):
    rng = np.random.default_rng(0)
    assert not hints(caplog, [made_like(shape, 19, rng) for shape in (arrow(), arrow()[:, ::-1])])


def test_confusion_weighs_both_classes_the_same():
    """Counted by hand: class 0 of 100 images, 1 of 4, 2 of 10."""
    label = np.repeat([0, 1, 2], [100, 4, 10])
    predicted = np.concatenate([np.zeros(90), np.ones(5), np.full(5, 2), [0, 0, 1, 1], np.full(9, 2), [0]])
    (pair,) = [p for p in confused_pairs(label, predicted.astype(int), 3) if (p.first, p.second) == (0, 1)]
    assert pair.confused == pytest.approx((0.05 + 0.5) / (0.05 + 0.5 + 0.9 + 0.5))
    assert [(p.first, p.second) for p in confused_pairs(label, predicted.astype(int), 3)] == [(0, 1)]
    assert CONFUSED > (0.05 + 0.1) / (0.05 + 0.1 + 0.9 + 0.9)  # classes 0 and 2


def test_only_the_most_confused_pairs_are_looked_at(monkeypatch):
    monkeypatch.undo()
    label = np.repeat(np.arange(60), 10)
    predicted = np.where(np.arange(600) % 10 < 3 + label // 20, label ^ 1, label)
    found = confused_pairs(label, predicted, 60)
    assert [(p.first, p.second) for p in found] == [(c, c + 1) for c in range(40, 60, 2)]
    assert len(found) == MOST_PAIRS
    assert not confused_pairs(np.array([0, 1]), np.array([1, 0]), 2)  # of two images


# Through the commands


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Arrows to the left and to the right, and bars, as an image folder."""
    root, rng = tmp_path_factory.mktemp("signs"), np.random.default_rng(0)
    for name, shape in (("bars", bars(3, 9)), ("left", arrow()[:, ::-1]), ("right", arrow())):
        for split, n in (("train", 40), ("test", 15)):
            (root / split / name).mkdir(parents=True)
            for i, pixels in enumerate(made_like(shape, n, rng)):
                Image.fromarray(pixels).save(root / split / name / f"{i:02}.png")
    return root


def test_training_says_that_it_mirrors_and_what_came_of_it(signs):
    command = ["train", "--root", signs, "--image-size", SIDE, *TINY, "--batch-size", 10, "--epochs", 6]
    said = succeed(*command, "--out", "mirrored").stderr
    assert said.count("half of the training images are mirrored; pass --no-flip if") == 1
    assert len(re.findall(r"left and right \(\d\d % of their test images\);", said)) == 1
    said = succeed(*command, "--out", "as-is", "--no-flip").stderr
    assert "mirror" not in said
    mirrored, as_is = (load_checkpoint(Path(out) / "checkpoint.pt") for out in ("mirrored", "as-is"))
    assert (mirrored.transform["flip"], as_is.transform["flip"]) == (True, False)
    last = [checkpoint.history[-1]["test_accuracy"] for checkpoint in (mirrored, as_is)]
    assert last[0] < last[1]


def test_images_that_stay_files_are_looked_at_too(signs, caplog, quiet):
    dataset = load_dataset(DatasetConfig("imagefolder", str(signs)), 72, quiet)
    assert not dataset.train.in_memory
    predicted = np.where(dataset.test.label == 2, 1, dataset.test.label)  # right is taken for left
    note_mirrored_pairs(dataset, predicted, Transform(72), COMPUTE)
    assert "left and right (50 % of their test images);" in caplog.text
    odd = replace(dataset, class_names=[f"{name}\x1b" for name in dataset.class_names])
    note_mirrored_pairs(odd, predicted, Transform(72), COMPUTE)
    assert r"'left\x1b' and 'right\x1b' (50 %" in caplog.text


def test_no_flip_is_kept_for_views_and_for_going_on(signs, monkeypatch):
    command = ["train", "--root", signs, "--image-size", SIDE, *TINY, "--no-flip", "--out", "phase1"]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("extract.train.take_step", interrupted)
        assert run(*command).exit_code == 130
    succeed("train", "--out", "phase1", "--resume", "--no-flip")
    assert load_checkpoint(Path("phase1/checkpoint.pt")).dataset["no_flip"] is True
    drawn = []

    def seen(images, top, left, mirrored):
        drawn.append(mirrored)
        return images

    monkeypatch.setattr("extract.images.transforms._cropped", seen)
    succeed("extract", "--ckpt", "phase1/checkpoint.pt", "--views", 4, "--device", "cpu")
    assert drawn
    assert not any(bool(mirrored.any()) for mirrored in drawn)


def test_a_training_that_mirrors_does_not_go_on_without(signs, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("extract.train.take_step", interrupted)
        assert run("train", "--root", signs, "--image-size", SIDE, *TINY, "--out", "phase1").exit_code == 130
    says = ["no_flip was False, now it is True"]
    refuse("train", "--out", "phase1", "--resume", "--no-flip", says=says)


def test_digits_are_never_mirrored(phase1):
    assert load_checkpoint(phase1).transform["flip"] is False
    refuse("train", "--no-flip", says=["--no-flip: digits is never mirrored; leave it out"])
    refuse("store", "plan", "--ckpt", phase1, "--no-flip", says=["--no-flip: the checkpoint determines"])


def test_analyze_tells_mirrored_and_unmirrored_phase_1_apart(digits_run):
    for name, no_flip in (("a", False), ("b", True)):
        folder = Path(shutil.copytree(digits_run, name))
        content = json.loads((folder / "config.json").read_text())
        made = content["provenance"]["store"]
        made["dataset"]["no_flip"], made["checkpoint"]["sha256"] = no_flip, name * 64
        (folder / "config.json").write_text(json.dumps(content))
    shown = succeed("analyze", "a", "b").stdout
    assert "no_flip=True" in shown
    assert "no_flip=False" in shown
