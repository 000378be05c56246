from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
import zarr
from made_store import CLASSES, fill, made_layouts, made_plan, made_rows, make_store
from rich.progress import Progress

from extract.cam import class_activation_maps
from extract.checkpoints.checkpoint import load_checkpoint
from extract.checkpoints.restore import restore
from extract.config import ExtractConfig
from extract.device import Compute
from extract.dump import extract
from extract.images.transforms import normalise
from extract.inference.passes import by_class, feature_maps
from store.containers.detect import open_container
from store.layout import BLOCK_BYTES, CHUNK_BYTES, store_layout
from store.reader import FeatureStore
from store.schema import STREAMED
from store.writer import write_store

SUFFIXES = (".zarr", ".h5")


@pytest.fixture(params=SUFFIXES)
def made(request, tmp_path, monkeypatch):
    """A made store of each container, in several blocks."""
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 2048)
    path = tmp_path / f"s{request.param}"
    make_store(path)
    return path


def test_rows_come_back_as_they_were_written(made):
    store, rows = FeatureStore(made), made_rows()
    assert len(store.arrays["train/feature_map"].extents) > 1 or made.suffix == ".h5"
    for path, value in rows.items():
        np.testing.assert_array_equal(store.arrays[path].read(), value, strict=True)
    assert store.class_names == CLASSES
    assert store.provenance == made_plan().attributes["provenance"]
    assert store.splits == ["train", "val", "test"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_containers_own_library_reads_it_in_the_declared_layout(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 2048)
    path = tmp_path / f"s{suffix}"
    make_store(path)
    root = zarr.open_group(path, mode="r") if suffix == ".zarr" else h5py.File(path, "r")
    assert root.attrs["format"] in ("tailcache-feature-store", b"tailcache-feature-store")
    assert root.attrs["schema_version"] == 1
    assert bool(root.attrs["complete"]) is True
    for name, value in made_rows().items():
        np.testing.assert_array_equal(root[name][:], value, strict=True)
    assert root["checksum/train/pooled"].shape == (made_layouts()["train/pooled"].n_blocks,)


def test_both_containers_hold_the_same(tmp_path):
    stores = []
    for suffix in SUFFIXES:
        make_store(tmp_path / f"s{suffix}")
        stores.append(FeatureStore(tmp_path / f"s{suffix}"))
    a, b = stores
    assert (a.class_names, a.provenance, a.arrays.keys()) == (b.class_names, b.provenance, b.arrays.keys())
    for name, array in a.arrays.items():
        np.testing.assert_array_equal(array.read(), b.arrays[name].read(), strict=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_beyond_the_64_kib_of_an_hdf5_object_header(tmp_path, suffix):
    names = [f"espèce {i:06}" for i in range(8142)]
    plan = replace(made_plan(), class_names=names)
    with write_store(tmp_path / f"s{suffix}", plan, resume=False, overwrite=False) as writer:
        fill(writer, made_rows())
        writer.finish()
    assert open_container(tmp_path / f"s{suffix}")[0]["class_names"] == names


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_zeros_are_written_not_left_out(tmp_path, suffix):
    zeros = {path: np.zeros_like(value) for path, value in made_rows().items()}
    with write_store(tmp_path / f"s{suffix}", made_plan(), resume=False, overwrite=False) as writer:
        fill(writer, zeros)
        writer.finish()
    store = FeatureStore(tmp_path / f"s{suffix}")
    assert not store.arrays["train/feature_map"].read().any()


@pytest.mark.parametrize(
    "row_shape", [(7, 7, 2048), (4, 4, 128), (2,), ()], ids=lambda shape: "x".join(map(str, shape))
)
@pytest.mark.parametrize("batch_size", [1, 100, 127, 128])
def test_blocks_are_whole_batches_and_whole_chunks(row_shape, batch_size):
    height, width, channels = row_shape if len(row_shape) == 3 else (1, 1, 2)
    sizes = {"train": {"N": 10_000, "H": height, "W": width, "C": channels}}
    for path, layout in store_layout(sizes, 10, "float16", batch_size).items():
        assert layout.block_rows % layout.chunk_rows == 0, path
        assert layout.block(layout.n_blocks - 1)[1] == layout.shape[0], path
        if path.rpartition("/")[2] in STREAMED and path.startswith("train/"):
            assert layout.block_rows % batch_size == 0, path
            assert layout.chunk_rows * layout.row_bytes <= max(CHUNK_BYTES, layout.row_bytes), path
            assert layout.block_rows * layout.row_bytes <= max(BLOCK_BYTES, batch_size * layout.row_bytes)


@pytest.fixture(scope="module")
def restored(phase1):
    return restore(phase1, None, Progress(disable=True))


def test_every_image_of_every_split_is_there_once_sorted_by_class(feature_store, restored):
    store = FeatureStore(feature_store)
    assert store.splits == ["train", "val", "test"]
    for name, images in restored.dataset.splits.items():
        split = store.read(name)
        order = np.lexsort((images.sample_index, images.label))
        np.testing.assert_array_equal(split.label, images.label[order])
        np.testing.assert_array_equal(split.sample_index, images.sample_index[order])
        assert (np.diff(split.label) >= 0).all()


def test_pooled_times_classifier_are_the_networks_logits(feature_store, restored):
    store = FeatureStore(feature_store)
    weight, bias = store.classifier
    for name in store.splits:
        images = by_class(restored.dataset.splits[name])
        with torch.inference_mode():
            logits = restored.network(normalise(images.images, restored.transform)).numpy()
        np.testing.assert_allclose(store.read(name).pooled @ weight.T + bias, logits, atol=1e-4)


def test_maps_average_to_pooled_and_give_the_cams(feature_store):
    store = FeatureStore(feature_store)
    train, maps = store.read("train"), store.read_feature_map()
    np.testing.assert_allclose(maps.mean((1, 2)), train.pooled, rtol=1e-4, atol=1e-6)
    label = torch.from_numpy(train.label.astype(np.int64))
    cam = class_activation_maps(torch.from_numpy(maps), torch.from_numpy(store.classifier[0]), label)
    np.testing.assert_allclose(store.read_cam(), cam.numpy(), atol=2e-3)
    assert (store.read_cam().min((1, 2)) == 0).all()
    assert (store.read_cam().max((1, 2)) == 1).all()


def test_a_range_of_no_maps_is_empty(feature_store):
    store = FeatureStore(feature_store)
    assert store.read_feature_map(0, 0).shape == (0, *store.map_shape[1:])
    assert len(store.read_feature_map(3, 3)) == 0
    assert len(store.read_feature_map(3, 10**6)) == store.map_shape[0] - 3


def test_what_is_kept_for_the_next_to_ask_cannot_be_changed(feature_store):
    rows = FeatureStore(feature_store).read("train")
    for values in (rows.label, rows.sample_index, rows.view):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 1


def test_default_maps_are_the_float32_ones_rounded(feature_store, phase1, tmp_path, quiet):
    extract(ExtractConfig(str(phase1), str(tmp_path / "half.zarr"), device="cpu"), quiet)
    half, full = FeatureStore(tmp_path / "half.zarr"), FeatureStore(feature_store)
    assert half.read_feature_map().dtype == np.float16
    np.testing.assert_array_equal(half.read_feature_map(), full.read_feature_map().astype(np.float16))
    np.testing.assert_array_equal(half.read("train").pooled, full.read("train").pooled)


def test_bf16_is_computed_under_autocast_but_pooled_in_float32(phase1, feature_store, tmp_path, quiet):
    extract(ExtractConfig(str(phase1), str(tmp_path / "b.zarr"), precision="bf16", device="cpu"), quiet)
    pooled, exact = (FeatureStore(p).read("test").pooled for p in (tmp_path / "b.zarr", feature_store))
    assert pooled.dtype == np.float32
    assert not np.array_equal(pooled, exact)
    np.testing.assert_allclose(pooled, exact, atol=0.1 * np.abs(exact).max())
    as_bf16 = torch.from_numpy(pooled).bfloat16().float().numpy()
    assert not np.array_equal(pooled, as_bf16)  # a mean of bfloat16 values, itself not rounded to one


def test_extraction_uses_evaluation_mode(restored):
    before = {k: v.clone() for k, v in restored.network.state_dict().items()}
    restored.network.train()
    compute = Compute(torch.device("cpu"), "fp32", 64, 0)
    list(feature_maps(restored.network, restored.dataset.test, restored.transform, compute))
    after = restored.network.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())  # no running statistic moved


def test_provenance_says_what_made_the_store(feature_store, phase1):
    made = FeatureStore(feature_store).provenance
    assert made["checkpoint"]["path"] == str(phase1)
    assert made["dataset"]["imbalance_factor"] == 20
    assert made["dataset"]["fingerprint"] == load_checkpoint(phase1).fingerprint
    assert made["network"]["arch"] == "resnet8"
    assert {"torch", "zarr", "tailcache"} <= made["versions"].keys()
