"""Maps on a GPU: how much of its memory they take, and their upload; on fake GPUs, and a real one."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from finetune.config import FinetuneConfig
from finetune.heads.cuda_graph import RecordedSteps
from finetune.heads.threads import single_threaded
from finetune.loading.residency import (
    GIB,
    Residency,
    available_memory,
    choose_residency,
    hold_maps,
    memory_for_maps,
    uploaded,
)
from finetune.training.trainer import LoadedStore, Trainer
from store.arrays.maps import StoredMaps
from store.arrays.raw import StoredArray
from store.config import ConvertConfig
from store.convert import convert
from store.errors import UserError
from store.reader import FeatureStore
from store.storage.location import locate

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def store(feature_store) -> FeatureStore:
    return FeatureStore(locate(str(feature_store)))


def free_on_gpu(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (n_bytes, 80 * GIB))


@pytest.mark.parametrize(("beyond", "kind"), [(-1, "host"), (0, "device"), (GIB, "device")])
def test_two_gib_of_a_gpu_stay_free(store, monkeypatch, beyond, kind):
    free_on_gpu(monkeypatch, 2 * GIB + store.map_bytes + beyond)
    assert choose_residency("auto", None, store, GPU).kind == kind


def test_maps_for_which_a_gpu_has_no_room_are_refused_with_what_it_has(store, monkeypatch):
    free_on_gpu(monkeypatch, 5 * GIB // 2)
    monkeypatch.setattr(StoredMaps, "n_bytes", 3 * GIB // 4)
    with pytest.raises(UserError, match=r"device: 0.75 GiB .* only 0.5 GiB for them on cuda:0; use .*stream"):
        choose_residency("device", None, store, GPU)
    free_on_gpu(monkeypatch, GIB)
    assert memory_for_maps(GPU) == 0
    assert 0 < memory_for_maps(CPU) <= 2 * available_memory()


@pytest.fixture(params=["float16", "float32", "bfloat16", "int8", "float8_e4m3"])
def rounded(request, feature_store, tmp_path, quiet, monkeypatch) -> FeatureStore:
    """A store with several blocks in each dtype, compressed if lossy, the last block partly filled."""
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 2**16)
    lossy = request.param in ("int8", "float8_e4m3")
    target = str(tmp_path / ("other.h5" if lossy else "other.zarr"))
    codec = "lz4" if lossy else "none"
    convert(ConvertConfig(str(feature_store), target, dtype=request.param, codec=codec), quiet)
    return FeatureStore(locate(target))


def as_bytes(table: torch.Tensor) -> bytes:
    return table.cpu().contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_maps_uploaded_in_parts_are_the_maps(rounded, monkeypatch, at_once):
    block = rounded.block_rows("train/feature_map")
    assert 1 < block < rounded.map_shape[0] / 2
    row_bytes = rounded.map_bytes // rounded.map_shape[0]
    monkeypatch.setattr("finetune.loading.residency.UPLOAD_BYTES", at_once * block * row_bytes)
    table = uploaded(rounded, CPU)
    assert table.dtype == getattr(torch, rounded.read_feature_map().dtype.name)
    assert table.shape == (np.prod(rounded.map_shape[:3]), rounded.map_shape[3])
    assert as_bytes(table) == rounded.read_feature_map().tobytes()


def test_maps_for_a_device_are_never_all_in_the_hosts_memory(store, monkeypatch):
    """The device "meta" has no memory; it stands for any device that is not the host."""
    monkeypatch.setattr("finetune.loading.residency.UPLOAD_BYTES", store.map_bytes // 3)
    block = store.map_shape[0] // 4
    monkeypatch.setattr(FeatureStore, "block_rows", lambda self, name: block)
    asked, read = [], StoredMaps.read
    monkeypatch.setattr(StoredMaps, "read", lambda self, *rows: (asked.append(rows), read(self, *rows))[1])
    maps = hold_maps(store, Residency("device", ""), torch.device("meta"))
    assert maps._table.device.type == "meta"
    assert [stop - start for start, stop in asked] == [block] * len(asked)
    assert asked[-1][0] < store.map_shape[0] <= asked[-1][1]


def test_a_value_that_is_no_number_is_found_on_the_way_with_its_row(store, monkeypatch):
    monkeypatch.setattr(FeatureStore, "block_rows", lambda self, name: 8)
    monkeypatch.setattr("finetune.loading.residency.UPLOAD_BYTES", 1)
    row, read = store.map_shape[0] - 3, StoredArray.read

    def damaged(self, start=0, stop=None) -> np.ndarray:
        values = read(self, start, stop)
        if self.name == "train/feature_map" and start <= row < (stop or self.shape[0]):
            values[row - start, 0, 0, 0] = np.inf
        return values

    monkeypatch.setattr(StoredArray, "read", damaged)
    with pytest.raises(UserError, match=rf"train/feature_map has NaN or infinite features in row {row};"):
        uploaded(store, CPU)


def test_a_group_that_has_ended_holds_no_recording_and_leaves_no_heads(store, feature_store, monkeypatch):
    """Otherwise a sweep would pile up graphs until Python's cycle collector runs."""
    recorded = RecordedSteps(lambda work: (work(), lambda: None)[1])
    monkeypatch.setattr("finetune.training.head_pool.recorded_on", lambda device: recorded)
    config = FinetuneConfig(str(feature_store), iterations=4, window=2, eval_every=2, method="fsa")
    one = config.resolved(len(store.class_names))
    gc.disable()
    try:
        with single_threaded() as threads:
            bench = LoadedStore.open(store, one.shot_rule, CPU, threads)
            trainer = Trainer([one, replace(one, lr=0.01)], bench)
            trainer.evaluate()
            held = [len(recorded._recorded) for _ in trainer.run(2)]
            assert held[0] > 0
            assert not recorded._recorded
            assert len(trainer.layers()) == 2  # still needed
            heads = [weakref.ref(stack) for stack in trainer._heads._heads]
            del trainer
            assert [end() for end in heads] == [None] * len(heads)
    finally:
        gc.enable()


@pytest.mark.cuda
def test_maps_on_a_gpu_are_the_maps(rounded, monkeypatch):
    monkeypatch.setattr("finetune.loading.residency.UPLOAD_BYTES", rounded.map_bytes // 3)
    assert as_bytes(uploaded(rounded, GPU)) == rounded.read_feature_map().tobytes()
