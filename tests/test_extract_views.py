"""Views of training images: drawn by key, so the same in any batch, order and process."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_views import BATCH, V, expected_view, slow_seed, slow_view, splitmix
from rich.progress import Progress

from extract.checkpoints.restore import Restored, restore
from extract.device import Compute
from extract.images.batches import evaluation_batches
from extract.images.image_set import EVALUATION, ImageSet, read_image
from extract.images.transforms import Transform, evaluation_image, normalise, view_batch
from extract.images.views import draw_below, view_seeds, with_views
from extract.inference.passes import by_class

pytestmark = pytest.mark.usefixtures("in_tmp_path")
QUIET = Progress(disable=True)
SPLITMIX = (6457827717110365317, 3203168211198807973, 9817491932198370423)  # of 1234567, as published


def test_draws_are_the_published_numbers():
    for number, expected in enumerate(SPLITMIX):
        assert splitmix(1234567, number) == expected
        assert draw_below(np.array([1234567]), number, 2**63).tolist() == [expected % 2**63]


def test_seeds_are_those_of_the_documented_hash_and_all_differ():
    index, view = np.array([0, 1, 2, 7_000_000_000]), np.arange(5)
    found = {}
    for seed in (0, 1, 2**32 - 1):
        seeds = view_seeds(seed, index[:, None], view)
        assert (seeds.dtype, seeds.shape, seeds.min() >= 0) == (np.int64, (4, 5), True)
        found |= {(seed, i, v): int(seeds[r, v]) for r, i in enumerate(index.tolist()) for v in range(5)}
    assert found == {key: slow_seed(key[0], key[1], key[2]) for key in found}
    assert len(set(found.values())) == len(found)


def test_every_crop_and_flip_is_as_likely_and_none_tells_another():
    seeds = view_seeds(0, np.arange(10_000)[:, None], np.arange(1, 9)).ravel()
    top, left = (draw_below(seeds, number, 9) for number in (0, 1))
    together = np.bincount((top * 9 + left) * 2 + draw_below(seeds, 2, 2), minlength=162)
    expected = len(seeds) / 162
    assert (np.abs(together - expected) < 5 * np.sqrt(expected)).all()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("side", "padding"), [(32, 4), (64, 8), (8, 1)])
def test_a_batch_of_views_equals_a_slow_reference(side, padding, flip):
    images = noise(60, side)
    seeds = view_seeds(3, np.arange(60), np.array([1]))
    seeds[::7] = EVALUATION
    shown = view_batch(images, Transform(side, flip=flip), seeds)
    n_mirrored = 0
    for row, seed in enumerate(seeds.tolist()):
        if seed == EVALUATION:
            assert torch.equal(shown[row], images[row])
            continue
        expected, mirrored = slow_view(images[row], seed, padding, flip)
        assert torch.equal(shown[row], expected)
        assert mirrored or not torch.equal(expected, expected.flip(-1))
        n_mirrored += mirrored
    assert (10 < n_mirrored < 41) if flip else n_mirrored == 0


def noise(n: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, 3, side, side), generator=generator, dtype=torch.uint8)


@pytest.fixture(params=["memory", "files"])
def restored(request, small_ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> Restored:
    """The network and its images, decoded or as files."""
    if request.param == "files":
        monkeypatch.setattr("extract.dataset.IN_MEMORY_SIZE", 8)
    made = restore(small_ckpt, None, QUIET)
    assert made.dataset.train.in_memory == (request.param == "memory")
    return made


def in_views(restored: Restored) -> ImageSet:
    """The training images in the order of a store, in V views."""
    return with_views(by_class(restored.dataset.train), 0, V)


def shown(images: ImageSet, transform: Transform, batch_size: int, workers: int) -> torch.Tensor:
    """The batches of images with V views, (N, V, 3, H, W) float32."""
    compute = Compute(torch.device("cpu"), "fp32", batch_size, workers)
    batches, done, out = evaluation_batches(images, transform, compute), 0, []
    while done < len(images):
        views = list(itertools.islice(batches, images.n_views))
        n = min(batch_size, len(images) - done)
        for of_view, label in views:
            assert label.tolist() == images.label[done : done + n].tolist()
            assert of_view.shape[0] == n
        out.append(torch.stack([of_view for of_view, _ in views], dim=1))
        done += n
    assert next(batches, None) is None
    return torch.cat(out)


def test_a_view_is_the_same_in_any_batch_order_and_process(restored):
    images, transform = in_views(restored), restored.transform
    once = shown(images, transform, 18, workers=0)
    for batch_size, workers in ((1, 0), (2, 2), (4, 1), (7, 2)):
        assert torch.equal(shown(images, transform, batch_size, workers), once)
    order = np.random.default_rng(0).permutation(18)
    assert torch.equal(shown(images.take(order), transform, 5, 0), once[order])
    some = replace(images, seeds=None).take(order[:9])
    assert torch.equal(shown(with_views(some, 0, V), transform, 5, 0), once[order[:9]])
    pairs = [(a, b) for of_image in once for a, b in itertools.combinations(of_image, 2)]
    n_alike = sum(torch.equal(a, b) for a, b in pairs)
    assert n_alike <= (4 if images.in_memory else 0)  # of 54; a small image has 50 crops and flips


def test_view_0_is_what_evaluation_shows_and_others_what_training_does(restored):
    images, transform = in_views(restored), restored.transform
    found = shown(images, transform, 8, workers=0)
    assert torch.equal(found[:, :1], shown(replace(images, seeds=None), transform, 8, workers=0))
    for row in range(18):
        for view in range(1, V):
            seed = slow_seed(0, int(images.sample_index[row]), view)
            expected = expected_view(images, row, transform, seed)
            assert torch.equal(found[row, view], normalise(expected[None], transform)[0])


def test_another_seed_of_phase_1_shows_other_views(restored):
    images = restored.dataset.train
    ours, theirs = (shown(with_views(images, s, 2), restored.transform, 9, 0) for s in (0, 1))
    assert torch.equal(ours[:, 0], theirs[:, 0])
    n_alike = sum(torch.equal(a, b) for a, b in zip(ours[:, 1], theirs[:, 1], strict=True))
    assert n_alike <= 2  # of the 50 crops and flips of a small image


def test_a_file_is_opened_once_for_all_its_views(small_root, monkeypatch):
    opened = []

    def noted(path: Path, *known: object) -> torch.Tensor:
        opened.append(path)
        return read_image(path, *known)

    monkeypatch.setattr("extract.images.transforms.read_image", noted)
    paths = sorted(small_root.glob("train/*/*.png"))
    images = with_views(ImageSet(paths, np.zeros(18, np.int64), np.arange(18)), 0, V)
    found = shown(images, Transform(16), BATCH, workers=0)
    assert opened == paths
    for path, views in zip(paths, found, strict=True):
        first = evaluation_image(read_image(path), Transform(16))
        assert torch.equal(views[0], normalise(first[None], Transform(16))[0])


def test_images_in_memory_stay_one_copy(small_ckpt):
    images = restore(small_ckpt, None, QUIET).dataset.train
    assert with_views(images, 0, 50).images is images.images
    assert with_views(images, 0, 1) is images


def test_the_first_views_are_the_same_however_many_there_are(small_ckpt):
    images = restore(small_ckpt, None, QUIET).dataset.train
    np.testing.assert_array_equal(with_views(images, 0, 5).seeds[:, :2], with_views(images, 0, 2).seeds)
