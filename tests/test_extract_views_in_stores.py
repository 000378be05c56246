"""Stores of several views: every view of every training image, as the network sees it."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from bad_input import FOLDER, TINY, refuse, succeed
from made_views import BATCH, V, assert_same, command, expected_view, slow_seed
from rich.progress import Progress

from extract.checkpoints.restore import Restored, restore
from extract.config import ExtractConfig
from extract.dump import extract
from extract.images.transforms import normalise
from extract.inference.passes import by_class
from extract.networks.parts import pool
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")
QUIET = Progress(disable=True)
FILLED = ("pooled", "feature_map", "cam")


class Pair(NamedTuple):
    """A store of one view and one of V views, otherwise equal, and their checkpoint."""

    restored: Restored
    one: FeatureStore
    views: FeatureStore


@pytest.fixture(scope="session", params=["memory", "files"])
def pair(request, small_ckpt: Path, tmp_path_factory) -> Pair:
    """Stores with several blocks, of images decoded or as files."""
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
    assert "72 rows extracted again agree" in succeed("store", "verify", "back.zarr", *checked).stdout


def test_what_is_said_counts_images_and_views(small_ckpt):
    text = succeed(*command(small_ckpt, "s.zarr")).stdout
    assert "s.zarr/train: feature maps (N, H, W, C) (54, 4, 4, 16), 3 views of each of 18 images\n" in text
    assert "s.zarr/test: pooled features (N, C) (18, 16)\n" in text
    text = succeed("store", "info", "s.zarr").stdout
    assert "3 classes: ape 8, bee 6, cat 4\n3 views of each training image\n" in text
    content = json.loads(succeed("store", "info", "s.zarr", "--json").stdout)
    assert content["views"] == {"train": 3, "test": 1}
    assert content["classes"][0] == {"class_name": "ape", "train": 8, "test": 8}
