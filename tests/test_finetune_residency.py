"""Where the maps live changes only the time."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from finetune.config import FinetuneConfig
from finetune.heads.threads import single_threaded
from finetune.loading.residency import StreamedMaps, choose_residency, hold_maps
from finetune.methods.registry import METHODS
from finetune.train import finetune
from finetune.training.inputs import plan_inputs
from finetune.training.trainer import LoadedStore
from store.arrays.gather import gather
from store.config import ConvertConfig
from store.convert import convert
from store.errors import UserError
from store.reader import FeatureStore
from store.storage.location import locate

CPU = torch.device("cpu")


@pytest.fixture
def config(feature_store, tmp_path) -> FinetuneConfig:
    return FinetuneConfig(
        str(feature_store), str(tmp_path / "run"), iterations=70, device="cpu", prefetch=0, method="fsa"
    )


@pytest.fixture(params=["zarr, none", "zarr, zstd", "h5, none", "h5, lz4"])
def stored(request, feature_store, tmp_path, quiet) -> str:
    """The same features in every container, raw and compressed."""
    container, codec = request.param.split(", ")
    target = str(tmp_path / f"other.{container}")
    convert(ConvertConfig(str(feature_store), target, codec=codec), quiet)
    return target


def head_of(config: FinetuneConfig, quiet, **changed) -> bytes:
    run = finetune(replace(config, overwrite=True, **changed), quiet)
    return (run.path / "head.pt").read_bytes()


@pytest.mark.parametrize("residency", ["host", "stream", "device"])
def test_head_is_the_same_in_every_container_and_residency(config, stored, residency, quiet):
    assert head_of(config, quiet) == head_of(config, quiet, store=stored, residency=residency)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "float8_e4m3"])
def test_every_dtype_streams_as_it_is_held(config, feature_store, tmp_path, dtype, quiet):
    target = str(tmp_path / "other.zarr")
    convert(ConvertConfig(str(feature_store), target, dtype=dtype), quiet)
    held = head_of(config, quiet, store=target, residency="host")
    assert held == head_of(config, quiet, store=target, residency="stream", window=7)


@pytest.mark.parametrize(
    "changed",
    [
        {"window": 1},
        {"window": 7},
        {"window": 1000},
        {"prefetch": 1},
        {"prefetch": 5},
        {"eval_every": 3},
        {"residency": "stream", "memory": 1e-3},
        {"residency": "stream", "window": 5, "prefetch": 3},
    ],
    ids=str,
)
def test_window_and_prefetch_change_no_bit(config, changed, quiet):
    assert head_of(config, quiet) == head_of(config, quiet, **changed)


@pytest.mark.parametrize("n_threads", [2, 3])
def test_threads_change_no_bit(config, n_threads, quiet, monkeypatch):
    expected = head_of(config, quiet)
    monkeypatch.setattr("finetune.training.head_pool.LEAST_SHARED", 1)
    monkeypatch.setattr("finetune.heads.stacked.CLASSES_AT_ONCE", 3)
    alone = head_of(config, quiet)
    torch.set_num_threads(n_threads)
    try:
        assert head_of(config, quiet) == alone
        monkeypatch.undo()
        assert head_of(config, quiet) == expected
    finally:
        torch.set_num_threads(1)


def test_auto_streams_what_does_not_fit_and_says_so(config, quiet, monkeypatch):
    expected = head_of(config, quiet)
    assert finetune(replace(config, overwrite=True), quiet).config["facts"]["residency"]["kind"] == "device"
    store = FeatureStore(locate(config.store))
    monkeypatch.setattr("finetune.loading.residency.available_memory", lambda: store.map_bytes)
    run = finetune(replace(config, overwrite=True), quiet)
    residency = run.config["facts"]["residency"]
    assert residency["kind"] == "stream"
    assert "chosen by free memory" in residency["why"]
    assert (run.path / "head.pt").read_bytes() == expected


def choose(config: FinetuneConfig, wanted: str, memory: float | None):
    return choose_residency(wanted, memory, FeatureStore(locate(config.store)), CPU)


def test_memory_bounds_the_window_of_a_stream(config):
    store = FeatureStore(locate(config.store))
    row_gib = store.map_bytes / store.map_shape[0] / 2**30
    chosen = choose(config, "stream", 320.5 * row_gib)
    assert chosen.rows == 320
    assert (chosen.fitting(64, 64), chosen.fitting(64, 32), chosen.fitting(4, 32)) == (5, 10, 4)
    with pytest.raises(UserError, match=r"--memory .*the maps of one iteration take .* GiB; raise it"):
        chosen.fitting(64, 321)


def test_plans_of_any_batch_share_one_stream(config, monkeypatch):
    """Free memory may differ when the second one is made; the space already taken does not."""
    store = FeatureStore(locate(config.store))
    free = store.map_bytes  # half of it may be used
    monkeypatch.setattr("finetune.loading.residency.available_memory", lambda: free)
    n_classes = len(store.class_names)
    small, large = (replace(config, tail_samples=n).resolved(n_classes) for n in (4, 32))
    with single_threaded() as threads:
        bench = LoadedStore.open(store, "decoupling", CPU, threads)
        windows = [bench.prepare_maps(small)]
        free *= 10
        windows += [bench.prepare_maps(one) for one in (large, small)]
    rows = store.map_shape[0] // 2
    assert bench.residency[None].rows == rows
    assert windows == [rows // 16, rows // 128, rows // 16]


@pytest.mark.parametrize("wanted", ["host", "device"])
def test_what_does_not_fit_is_refused_where_it_is_asked_for(config, wanted):
    with pytest.raises(UserError, match=rf"--residency {wanted}: .* \(--memory\); use --residency stream"):
        choose(config, wanted, 1e-9)


def test_free_memory_is_what_the_system_says_can_be_had(config, monkeypatch):
    """As psutil reports it, not only where there is /proc; maps may take half of it."""
    needed = FeatureStore(locate(config.store)).map_bytes
    free = needed * 2
    monkeypatch.setattr(
        "psutil.virtual_memory", lambda: SimpleNamespace(available=free, free=0, total=10**15)
    )
    assert choose(config, "auto", None).kind == "device"
    free -= 2
    assert choose(config, "auto", None).kind == "stream"


@pytest.mark.parametrize("share", [1.0, 0.6, 0.35])
def test_a_stream_keeps_what_it_read_as_long_as_there_is_room(config, share, monkeypatch):
    """With any size of the ring, windows are fused alike; if it holds all maps, each is read once."""
    store = FeatureStore(locate(config.store))
    asked = []

    def counting(array, rows, out):
        asked.append(rows.copy())
        return gather(array, rows, out)

    monkeypatch.setattr("finetune.loading.residency.gather", counting)
    resolved = config.resolved(len(store.class_names))
    inputs, draw = plan_inputs(resolved, store), METHODS["fsa"].sampling.draw
    n_rows = store.map_shape[0]
    streamed = StreamedMaps(store, int(share * n_rows))
    held = hold_maps(store, choose(config, "host", None), CPU)
    for start in range(0, 40, 2):
        plan = draw(inputs, start, start + 2)
        assert torch.equal(written(plan, streamed), written(plan, held))
    read = np.concatenate(asked)
    assert all((np.diff(rows) > 0).all() for rows in asked)  # in storage order
    if share == 1:
        assert len(np.unique(read)) == len(read)
    else:
        assert len(np.unique(read)) < len(read)


def written(plan, maps) -> torch.Tensor:
    """(T, A, C) features of the new samples of a plan."""
    places = torch.full((*plan.mix.row.shape, 16), torch.nan)
    plan.mix.write(places, None, maps)
    return places


def made_plan(store: FeatureStore):
    config = FinetuneConfig("", method="fsa").resolved(len(store.class_names))
    return METHODS["fsa"].sampling.draw(plan_inputs(config, store), 0, 8)


def test_nan_in_a_streamed_map_is_told_with_its_row(config, monkeypatch, quiet):
    store = FeatureStore(locate(config.store))
    plan = made_plan(store)
    row = int(plan.mix.donor_row[2, 5])

    def damaged(array, rows, out):
        gather(array, rows, out)
        out[rows == row] = np.nan
        return out

    monkeypatch.setattr("finetune.loading.residency.gather", damaged)
    with pytest.raises(UserError, match=rf"train/feature_map has NaN or infinite features in row {row};"):
        written(plan, StreamedMaps(store, store.map_shape[0]))
    with pytest.raises(UserError, match="train/feature_map has NaN"):  # through the background thread
        finetune(replace(config, residency="stream", prefetch=2), quiet)
