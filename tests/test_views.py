"""Views of training images: drawn by key, the same whatever happens on the way, and sound in every store."""

import itertools
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from bad_input import FOLDER, TINY, refuse, run, succeed
from dying import die_at_commit
from faults import ended, forked
from PIL import Image
from rich.progress import Progress

from extract.config import ExtractConfig
from extract.device import Compute
from extract.dump import extract
from extract.images.batches import evaluation_batches
from extract.images.image_set import EVALUATION, ImageSet, read_image
from extract.images.transforms import Transform, evaluation_image, normalise, training_image, view_batch
from extract.images.views import draw_below, view_seeds, with_views
from extract.inference import by_class
from extract.networks.parts import pool
from extract.restore import Restored, restore
from store.drafts.lifecycle import unfinished_folder
from store.reader import FeatureStore
from store.writer import StoreWriter

pytestmark = pytest.mark.usefixtures("in_tmp_path")
QUIET = Progress(disable=True)
V, BATCH = 3, 4  # 18 images in batches of 4 leave one of 2
OPTIONS = ["--views", V, "--batch-size", BATCH, "--device", "cpu"]
FILLED = ("pooled", "feature_map", "cam")
SPLITMIX = (6457827717110365317, 3203168211198807973, 9817491932198370423)  # of 1234567, as published


# Draws


def splitmix(state: int, number: int) -> int:
    """One output of splitmix64 in Python's own numbers."""
    z = (state + (number + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def slow_seed(seed: int, sample_index: int, view: int) -> int:
    return splitmix(splitmix(splitmix(seed, 0) ^ view, 0) ^ sample_index, 0) >> 1


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


def slow_view(image: torch.Tensor, seed: int, padding: int, flip: bool) -> tuple[torch.Tensor, bool]:
    """A view (3, H, W) of one image from its seed, and whether it is mirrored."""
    _, height, width = image.shape
    top, left = (splitmix(seed, number) % (2 * padding + 1) for number in (0, 1))
    mirrored = flip and splitmix(seed, 2) % 2 == 1
    padded = torch.zeros(3, height + 2 * padding, width + 2 * padding, dtype=torch.uint8)
    padded[:, padding : padding + height, padding : padding + width] = image
    crop = padded[:, top : top + height, left : left + width]
    return (crop.flip(-1) if mirrored else crop), mirrored


# What the network sees


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
    """What evaluation shows of images with V views, (N, V, 3, H, W) float32."""
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


def expected_view(images: ImageSet, row: int, transform: Transform, seed: int) -> torch.Tensor:
    """A view of one image, uint8 (3, H, W), without the code under test but for training's own transform."""
    if images.in_memory:
        return slow_view(images.images[row], seed, 2, transform.flip)[0]
    return training_image(read_image(images.images[row]), transform, seed)


def test_another_seed_of_phase_1_shows_other_views(restored):
    images = restored.dataset.train
    ours, theirs = (shown(with_views(images, s, 2), restored.transform, 9, 0) for s in (0, 1))
    assert torch.equal(ours[:, 0], theirs[:, 0])
    n_alike = sum(torch.equal(a, b) for a, b in zip(ours[:, 1], theirs[:, 1], strict=True))
    assert n_alike <= 2  # of the 50 crops and flips of a small image


def test_a_file_is_opened_once_for_all_its_views(small_root, monkeypatch):
    opened = []

    def noted(path: Path, *known: object) -> Image.Image:
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


# Stores


class Pair(NamedTuple):
    """A store of one view and one of V views that differ in nothing else, and what both are of."""

    restored: Restored
    one: FeatureStore
    views: FeatureStore


@pytest.fixture(scope="session", params=["memory", "files"])
def pair(request, small_ckpt: Path, tmp_path_factory) -> Pair:
    """Stores in several blocks, of images decoded or as files."""
    folder = tmp_path_factory.mktemp("views")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("store.layout.BLOCK_BYTES", 1)
        if request.param == "files":
            patch.setattr("extract.dataset.IN_MEMORY_SIZE", 8)
        for n_views, name in ((1, "one.zarr"), (V, "views.h5")):
            options = {"dtype": "float32", "batch_size": BATCH, "device": "cpu"}
            extract(ExtractConfig(str(small_ckpt), str(folder / name), views=n_views, **options), QUIET)
        restored = restore(small_ckpt, None, QUIET)
    return Pair(restored, FeatureStore(folder / "one.zarr"), FeatureStore(folder / "views.h5"))


def test_rows_are_every_view_of_every_training_image_in_order(pair):
    _, one, views = pair
    n_blocks = len(views.arrays["checksum/train/pooled"].read())
    assert (n_blocks, views.block_rows("train/pooled")) == (5, BATCH * V)
    train, images = views.read("train"), one.read("train")
    assert train.view.tolist() == [0, 1, 2] * 18
    np.testing.assert_array_equal(train.label, np.repeat(images.label, V))
    np.testing.assert_array_equal(train.sample_index, np.repeat(images.sample_index, V))
    order = np.lexsort((train.view, train.sample_index, train.label))
    np.testing.assert_array_equal(order, np.arange(18 * V))
    np.testing.assert_array_equal(train.class_counts(3), images.class_counts(3))
    assert views.provenance["config"]["views"] == views.provenance["identity"]["number of views"] == V


def test_view_0_and_held_out_images_are_those_of_a_store_of_one_view_to_the_bit(pair):
    _, one, views = pair
    first = views.read("train").view == 0
    for name in ("label", "sample_index", "view", *FILLED):
        np.testing.assert_array_equal(
            views.arrays[f"train/{name}"].read()[first], one.arrays[f"train/{name}"].read(), strict=True
        )
    for name in ("label", "sample_index", "view", "pooled"):
        np.testing.assert_array_equal(
            views.arrays[f"test/{name}"].read(), one.arrays[f"test/{name}"].read(), strict=True
        )


def test_features_of_a_view_are_the_networks_of_the_image_that_it_shows(pair):
    restored, _, store = pair
    images, transform = by_class(restored.dataset.train), restored.transform
    pooled, maps, cams = store.read("train").pooled, store.read_feature_map(), store.read_cam()
    weight = store.classifier[0]
    for row in range(18 * V):
        image, view = divmod(row, V)
        if view == 0:
            continue
        expected = expected_view(
            images, image, transform, slow_seed(0, int(images.sample_index[image]), view)
        )
        with torch.inference_mode():
            of_view = restored.network.features(normalise(expected[None], transform))
        np.testing.assert_allclose(pooled[row], pool(of_view)[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(maps[row], of_view[0].permute(1, 2, 0).numpy(), atol=1e-5)
        raw = maps[row] @ weight[images.label[image]]
        np.testing.assert_allclose(cams[row], (raw - raw.min()) / np.ptp(raw), atol=2e-3)
        of_first = np.abs(pooled[row] - pooled[image * V]).max()
        assert of_first > 1e-3  # the tolerance tells views apart


def test_the_seed_is_that_of_phase_1(small_root):
    succeed("train", *FOLDER, *TINY, "--root", small_root, "--seed", 5, "--out", "phase1")
    succeed(*command(Path("phase1/checkpoint.pt"), "s.zarr"))
    restored = restore(Path("phase1/checkpoint.pt"), None, QUIET)
    pooled = FeatureStore(Path("s.zarr")).read("train").pooled
    images, transform = by_class(restored.dataset.train), restored.transform
    expected = [expected_view(images, row, transform, slow_seed(5, row, 1)) for row in range(18)]
    with torch.inference_mode():
        of_views = pool(restored.network.features(normalise(torch.stack(expected), transform)))
    np.testing.assert_allclose(pooled[1::V], of_views.numpy(), atol=1e-5)


def test_batch_size_moves_no_row_further_than_arithmetic_does(pair, small_ckpt):
    rows = {}
    for batch_size in (1, 7, 64):
        path = f"{batch_size}.zarr"
        options = ["--batch-size", batch_size, "--views", V, "--dtype", "float32", "--device", "cpu"]
        succeed("extract", "--ckpt", small_ckpt, "--store", path, *options)
        rows[batch_size] = FeatureStore(Path(path))
    if pair.restored.dataset.train.in_memory:
        rows[BATCH] = pair.views
    first = rows[1].read("train")
    for store in rows.values():
        train = store.read("train")
        np.testing.assert_array_equal(train.view, first.view)
        np.testing.assert_allclose(train.pooled, first.pooled, atol=1e-5)


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """Every array of a store, its checksums too, but for what depends on the time."""
    store, timely = FeatureStore(path), ("finished", "checksum/finished", "checksum/metadata")
    return {name: array.read() for name, array in store.arrays.items() if name not in timely}


def assert_same(path: Path, other: Path) -> None:
    ours, theirs = arrays_of(path), arrays_of(other)
    assert ours.keys() == theirs.keys()
    for name, rows in ours.items():
        np.testing.assert_array_equal(rows, theirs[name], strict=True, err_msg=name)


def command(ckpt: Path, store: str, *options: object) -> list[object]:
    return ["extract", "--ckpt", ckpt, "--store", store, *OPTIONS, *options]


@pytest.mark.usefixtures("several_blocks")
@pytest.mark.parametrize(
    ("store", "options"),
    [
        ("s.zarr", []),
        ("s.h5", ["--dtype", "int8"]),
        ("s.h5", ["--codec", "zstd"]),
    ],
    ids=["zarr", "h5", "packed-h5"],
)
def test_interrupted_after_any_view_and_resumed(small_ckpt, store, options, monkeypatch):
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 1)
    extraction = command(small_ckpt, store, *options)
    succeed(*command(small_ckpt, f"whole{Path(store).suffix}", *options))
    write = StoreWriter.write
    for n_writes in (V + 1, 2 * V + 2, 4 * V, 5 * V - 1):  # within a batch's views, and between batches
        n_left = itertools.count(n_writes, -1)

        def interrupted(*arguments, n_left=n_left, **named) -> None:
            if next(n_left) == 0:
                raise KeyboardInterrupt
            write(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(StoreWriter, "write", interrupted)
            assert run(*extraction).exit_code == 130
        assert unfinished_folder(Path(store)).exists()
        succeed(*extraction, "--resume")
        assert_same(Path(store), Path(f"whole{Path(store).suffix}"))
        Path(store).unlink() if store.endswith(".h5") else shutil.rmtree(store)


@pytest.mark.parametrize("store", ["s.zarr", "s.h5"])
def test_killed_and_resumed(small_ckpt, store, monkeypatch):
    def dying() -> None:
        die_at_commit(3)
        run(*command(small_ckpt, store))

    monkeypatch.setattr("store.layout.BLOCK_BYTES", 1)
    assert ended(*forked(dying)) == -signal.SIGKILL
    n_begun = len((unfinished_folder(Path(store)) / "commits.jsonl").read_text().splitlines())
    assert n_begun == 3
    succeed(*command(small_ckpt, store), "--resume")
    succeed(*command(small_ckpt, f"whole-{store}"))
    assert_same(Path(store), Path(f"whole-{store}"))


def begin(extraction: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave an extraction that was interrupted after two blocks."""
    write = StoreWriter.write

    def interrupted(writer, split, start, *rows, **named) -> None:
        if start >= 2 * BATCH * named["every"]:
            raise KeyboardInterrupt
        write(writer, split, start, *rows, **named)

    with monkeypatch.context() as patch:
        patch.setattr("store.layout.BLOCK_BYTES", 1)
        patch.setattr(StoreWriter, "write", interrupted)
        assert run(*extraction).exit_code == 130


def test_another_number_of_views_is_not_gone_on_with(small_ckpt, monkeypatch):
    begin(command(small_ckpt, "s.zarr"), monkeypatch)
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 1)
    says = "s.zarr.unfinished: was begun with another number of views (3) than asked for now"
    for n_views in (1, 2):
        other = [*command(small_ckpt, "s.zarr", "--resume"), "--views", n_views]
        refuse(*other, says=[f"{says} ({n_views})", "ask for the same, or pass --overwrite"])
    succeed(*command(small_ckpt, "s.zarr", "--resume"))
    other = [*command(small_ckpt, "s.zarr", "--resume"), "--views", 1]
    refuse(*other, says=["s.zarr: was begun with another number of views (3) than asked for now (1)"])
    succeed(*other[:-3], "--overwrite", "--views", 1)
    assert FeatureStore(Path("s.zarr")).read("train").n_views == 1


def forget_views(folder: Path) -> None:
    """Make what was begun as if by a program that knew of one view only."""
    begun = json.loads((folder / "begun.json").read_text())
    for identity in (begun["identity"], begun["attributes"]["provenance"]["identity"]):
        del identity["number of views"]
    del begun["attributes"]["provenance"]["config"]["views"]
    (folder / "begun.json").write_text(json.dumps(begun))


def test_what_was_begun_before_there_were_views_is_gone_on_with(small_ckpt, monkeypatch):
    one_view = [*command(small_ckpt, "s.h5"), "--views", 1]
    begin(one_view, monkeypatch)
    forget_views(unfinished_folder(Path("s.h5")))
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 1)
    refuse(
        *command(small_ckpt, "s.h5"), "--resume", says=["another number of views (1) than asked for now (3)"]
    )
    succeed(*one_view, "--resume")
    succeed(*command(small_ckpt, "whole.h5"), "--views", 1)
    assert_same(Path("s.h5"), Path("whole.h5"))


@pytest.mark.parametrize("n_views", [0, -1, 2**15 + 1])
def test_numbers_of_views_that_cannot_be(small_ckpt, n_views):
    for arguments in (["extract", "--store", "s.zarr"], ["store", "plan"]):
        refuse(*arguments, "--ckpt", small_ckpt, "--views", n_views, says=[f"--views {n_views}: must be "])


def test_conversion_keeps_views_and_their_blocks(small_ckpt, monkeypatch):
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 6000)
    succeed(*command(small_ckpt, "fine.zarr", "--dtype", "float32"))
    succeed(*command(small_ckpt, "coarse.h5", "--dtype", "int8"))
    succeed("store", "convert", "fine.zarr", "converted.h5", "--dtype", "int8")
    assert_same(Path("converted.h5"), Path("coarse.h5"))
    assert FeatureStore(Path("converted.h5")).provenance["config"]["views"] == V
    succeed("store", "convert", "coarse.h5", "back.zarr", "--codec", "zstd")
    assert succeed("store", "verify", "back.zarr").exit_code == 0
    checked = ["--sample", 99, "--ckpt", small_ckpt, "--device", "cpu"]
    assert "72 rows extracted anew agree" in succeed("store", "verify", "back.zarr", *checked).stdout


def test_what_is_said_counts_images_and_views(small_ckpt):
    text = succeed(*command(small_ckpt, "s.zarr")).stdout
    assert "s.zarr/train: feature maps (N, H, W, C) (54, 4, 4, 16), 3 views of each of 18 images\n" in text
    assert "s.zarr/test: pooled features (N, C) (18, 16)\n" in text
    text = succeed("store", "info", "s.zarr").stdout
    assert "3 classes: ape 8, bee 6, cat 4\n3 views of each training image\n" in text
    content = json.loads(succeed("store", "info", "s.zarr", "--json").stdout)
    assert content["views"] == {"train": 3, "test": 1}
    assert content["classes"][0] == {"class_name": "ape", "train": 8, "test": 8}
