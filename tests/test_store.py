import numpy as np
import pytest
import torch
import zarr
from rich.progress import Progress

from extract.cam import class_activation_maps
from extract.checkpoint import load_checkpoint
from extract.config import ExtractConfig
from extract.device import Compute
from extract.dump import extract
from extract.inference import by_class, feature_maps
from extract.restore import restore
from extract.transforms import normalise
from store.errors import StoreError
from store.reader import FeatureStore
from store.writer import StoreWriter
from store.zarr_store import row_layout


def write_small_store(path, n_rows=700, finish=True):
    """A store of made-up rows, appended in uneven batches."""
    generator = np.random.default_rng(0)
    rows = {
        "label": np.sort(generator.integers(0, 2, n_rows)),
        "sample_index": np.arange(n_rows),
        "view": np.zeros(n_rows),
        "pooled": generator.normal(size=(n_rows, 256)).astype(np.float32),
        "feature_map": generator.normal(size=(n_rows, 4, 4, 256)).astype(np.float16),
        "cam": generator.random((n_rows, 4, 4)).astype(np.float16),
    }
    writer = StoreWriter(path, ["a", "b"], {}, "float16")
    writer.write_classifier(np.ones((2, 256)), np.zeros(2))
    writer.create_split("train", {"N": n_rows, "H": 4, "W": 4, "C": 256})
    for start in range(0, n_rows, 33):
        writer.append("train", **{name: value[start : start + 33] for name, value in rows.items()})
    writer.create_split("test", {"N": 5, "C": 256})
    writer.append("test", **{name: rows[name][:5] for name in ("label", "sample_index", "view", "pooled")})
    if finish:
        writer.finish()
    return rows


def test_rows_come_back_as_they_were_written(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "store.zarr_store.SHARD_BYTES", 512 * 1024
    )  # several shards, the last one partly full
    rows = write_small_store(tmp_path / "s.zarr")
    store = FeatureStore(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.read_feature_map(), rows["feature_map"])
    np.testing.assert_array_equal(store.read_cam(), rows["cam"])
    train = store.read("train")
    np.testing.assert_array_equal(train.pooled, rows["pooled"])
    np.testing.assert_array_equal(train.label, rows["label"])


def test_plain_zarr_reads_it_in_the_declared_layout(tmp_path):
    write_small_store(tmp_path / "s.zarr")
    root = zarr.open_group(tmp_path / "s.zarr", mode="r")
    assert root.attrs["format"] == "tailcache-feature-store"
    assert root.attrs["schema_version"] == 1
    assert root.attrs["complete"] is True
    dtypes = {name: str(root[f"train/{name}"].dtype) for name in root["train"]}
    assert dtypes == {
        "label": "int32",
        "sample_index": "int64",
        "view": "int16",
        "pooled": "float32",
        "feature_map": "float16",
        "cam": "float16",
    }


def test_zeros_are_written_not_left_out(tmp_path):
    writer = StoreWriter(tmp_path / "s.zarr", ["a", "b"], {}, "float16")
    writer.create_split("train", {"N": 40, "H": 2, "W": 2, "C": 2})
    zeros = {"feature_map": np.zeros((40, 2, 2, 2)), "cam": np.zeros((40, 2, 2)), "pooled": np.zeros((40, 2))}
    ids = {name: np.zeros(40) for name in ("label", "sample_index", "view")}
    writer.append("train", **zeros, **ids)
    writer.finish()
    for name in (*zeros, *ids):
        assert any(path.is_file() for path in (tmp_path / "s.zarr" / "train" / name / "c").rglob("*"))


def test_unfinished_store_is_refused(tmp_path):
    write_small_store(tmp_path / "s.zarr", finish=False)
    with pytest.raises(StoreError, match="never finished"):
        FeatureStore(tmp_path / "s.zarr")


def test_missing_rows_cannot_be_finished(tmp_path):
    writer = StoreWriter(tmp_path / "s.zarr", ["a", "b"], {}, "float16")
    writer.create_split("test", {"N": 10, "C": 2})
    writer.append(
        "test", label=np.zeros(9), sample_index=np.zeros(10), view=np.zeros(10), pooled=np.zeros((10, 2))
    )
    with pytest.raises(StoreError, match="9 of 10 rows"):
        writer.finish()


@pytest.mark.parametrize(
    "shape", [(1, 7, 7, 2048), (115_846, 7, 7, 2048), (12_406, 4, 4, 128), (3,), (10, 2)]
)
def test_shards_are_whole_numbers_of_chunks_and_of_bounded_size(shape):
    chunk, shard = row_layout(shape, 2)
    row_bytes = 2 * int(np.prod(shape[1:]))
    assert shard % chunk == 0
    assert chunk * row_bytes <= max(128 * 1024, row_bytes)
    assert shard * row_bytes <= 32 * 1024**2


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
    assert made["network"]["arch"] == "resnet20"
    assert {"torch", "zarr", "tailcache"} <= made["versions"].keys()
