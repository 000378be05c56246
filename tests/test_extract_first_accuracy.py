"""The first accuracy of another program's network: early, of the images that it names, and true."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import run, succeed
from made_foreign import USERS, authors_network
from PIL import Image
from scipy.stats import binom

from analysis.chance import better_order, binomial_tail, is_at_chance

pytestmark = pytest.mark.usefixtures("in_tmp_path")
HOW = ["--ckpt", "users.pth", "--arch", USERS, "--root", "photos", "--image-size", 72, "--device", "cpu"]
HOW += ["--workers", 0]
FIRST = re.compile(r"fine-tuned: ([\d.]+) % of (\d+) test images(, drawn of \d+)?")


@pytest.fixture
def photos(in_tmp_path: None) -> None:
    """Noise of 80 pixels in three classes, above what is kept in memory, and a network."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 4), ("test", 7)):
        for name in ("ape", "bee", "cat"):
            Path("photos", split, name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (80, 80, 3), np.uint8)
                Image.fromarray(pixels).save(f"photos/{split}/{name}/{i}.png")
    torch.save(authors_network(USERS, 3).state_dict(), "users.pth")


@pytest.mark.usefixtures("photos")
def test_it_is_told_before_the_other_images_are_read():
    Path("photos/train/cat/3.png").write_bytes(b"no image")
    result = run("extract", *HOW)
    assert result.exit_code == 2
    said = result.stderr.splitlines()
    assert FIRST.search(result.stderr)
    assert "photos/train/cat/3.png: not a readable image" in said[-1]
    Path("photos/test/bee/1.png").write_bytes(b"no image")
    result = run("extract", *HOW)
    assert "photos/test/bee/1.png: not a readable image" in result.stderr
    assert not FIRST.search(result.stderr)


@pytest.mark.usefixtures("photos")
def test_of_many_images_it_draws_some(monkeypatch):
    monkeypatch.setattr("extract.adoption.first_accuracy.MOST", 5)
    said = [succeed("extract", *HOW, "--store", f"{seed}.zarr", "--seed", seed).stderr for seed in (0, 1)]
    found = [FIRST.search(text) for text in said]
    assert [match[2] for match in found] == ["5", "5"]
    assert found[0][3] == ", drawn of 21"


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("deep", [False, True])
def test_it_is_what_evaluate_counts(deep):
    """For images of 16 bits too, whose scale the training images decide."""
    if deep:
        for split in ("train", "test"):
            for k, path in enumerate(sorted(Path("photos", split).rglob("*.png"))):
                pixels = np.random.default_rng(k).integers(0, 900, (80, 80), np.uint16)
                Image.fromarray(pixels).save(path)
    said = succeed("extract", *HOW, "--no-flip").stderr
    told = succeed("evaluate", "--ckpt", "feats.checkpoint.pt", "--arch", USERS, "--device", "cpu").stdout
    n_correct, n = map(int, re.search(r"(\d+) of (\d+) correct", told).groups())
    assert FIRST.search(said)[1] == f"{100 * n_correct / n:.1f}"
    assert said.count("first accuracy") == 1


def test_chance_is_what_shuffled_predictions_reach():
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(5), (60, 20, 10, 6, 4))
    constant, noise = np.zeros_like(label), rng.integers(0, 5, 100)
    right = np.where(rng.random(100) < 0.6, label, noise)
    assert is_at_chance(label, constant)  # 60 % right, by always guessing the largest class
    assert is_at_chance(label, noise)
    assert is_at_chance(label, rng.permutation(label))
    assert not is_at_chance(label, right)
    assert not is_at_chance(label, label)
    assert not is_at_chance(np.array([0, 1]), np.array([0, 1]))  # too few to tell
    flagged = [is_at_chance(label, rng.permutation(right)) for _ in range(400)]
    assert np.mean(flagged) > 0.96


@pytest.mark.parametrize(
    ("least", "n", "p"), [(0, 5, 0.3), (3, 5, 0.3), (40, 2000, 0.01), (5, 5, 1.0), (1, 4, 0.0)]
)
def test_the_tail_is_that_of_the_binomial_distribution(least, n, p):
    assert binomial_tail(least, n, p) == pytest.approx(binom.sf(least - 1, n, p), rel=1e-6)


@pytest.mark.parametrize("n_classes", [3, 12, 60])
def test_another_order_is_found_when_it_is_there_and_not_by_chance(n_classes):
    rng = np.random.default_rng(n_classes)
    label = np.repeat(np.arange(n_classes), 12 + 120 // n_classes)
    right = rng.random(len(label)) < 0.7
    true = np.where(right, label, rng.integers(0, n_classes, len(label)))  # in the classes' own order
    order = np.roll(np.arange(n_classes), 1)  # the class of each output
    outputs = np.argsort(order)[true]
    accuracy, class_of = better_order(label, outputs, n_classes)
    assert accuracy == pytest.approx(100 * (true == label).mean(), abs=15)
    assert np.mean(class_of == order) > 0.9
    assert better_order(label, true, n_classes) is None
    for seed in range(50):
        noise = np.random.default_rng(seed).integers(0, n_classes, len(label))
        assert better_order(label, noise, n_classes) is None


def test_numbers_sorted_as_texts_are_noticed():
    """0, 1, 10, 11, 2, …: an accuracy far above chance, and still the wrong order."""
    names = sorted(map(str, range(12)))
    order = np.array([names.index(str(k)) for k in range(12)])  # the class of each output
    label = np.repeat(np.arange(12), 40)
    outputs = np.argsort(order)[label]
    assert 0.1 < np.mean(outputs == label) < 0.4
    assert not is_at_chance(label, outputs)
    accuracy, class_of = better_order(label, outputs, 12)
    assert accuracy == 100
    assert (class_of == order).all()
