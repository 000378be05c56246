"""`store plan`: sizes compared with real stores, and disks that are too small."""

import errno
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import h5py
import numpy as np
import pytest
from bad_input import run, succeed
from made_forecast import QUICK, TINY, chosen, planned
from made_store import made_layouts, made_plan, made_rows, write_made

from finetune.forecast import extraction
from finetune.forecast.compression import measure_packing
from finetune.forecast.disk import FREE_SHARE, measure_disk
from finetune.forecast.extract_throughput import sample_maps
from finetune.forecast.store_size import dataset_bytes, shard_bytes, store_size
from store.schema import MAP_DTYPES

pytestmark = pytest.mark.usefixtures("in_tmp_path")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks per split, the last one partly filled."""
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 4096)
    monkeypatch.setattr("store.layout.PACKED_CHUNK_BYTES", 512)


def files_of(store: Path) -> list[Path]:
    return [f for f in store.rglob("*") if f.is_file()] if store.is_dir() else [store]


def bytes_of_arrays(store: Path) -> dict[str, int]:
    """Real bytes of every array's rows: sizes of shards, or HDF5's own count."""
    if store.is_dir():
        shards = [f for f in files_of(store) if f.name != "zarr.json"]
        found: dict[str, int] = {}
        for shard in shards:
            name = str(shard.relative_to(store)).split("/c/")[0]
            found[name] = found.get(name, 0) + shard.stat().st_size
        return found
    found = {}
    with h5py.File(store) as file:
        file.visititems(
            lambda name, node: (
                found.update({name: node.id.get_storage_size()}) if isinstance(node, h5py.Dataset) else None
            )
        )
    return found


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", MAP_DTYPES)
@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_every_array_takes_what_was_said(suffix: str, dtype: str) -> None:
    store = Path(f"s{suffix}")
    write_made(store, made_plan(dtype=dtype), made_rows())
    layouts = made_layouts(dtype=dtype)
    assert layouts["train/feature_map"].n_blocks > 1
    assert layouts["train/feature_map"].shape[0] % layouts["train/feature_map"].chunk_rows
    bytes_of = shard_bytes if suffix == ".zarr" else dataset_bytes
    assert {name: bytes_of(layout) for name, layout in layouts.items()} == bytes_of_arrays(store)
    size = store_size(suffix, layouts)
    assert size.n_bytes == size.peak_bytes == sum(bytes_of_arrays(store).values())
    assert size.n_files == len(files_of(store))
    n_metadata = sum(f.name == "zarr.json" for f in files_of(store))
    assert size.n_shards == (len(files_of(store)) - n_metadata if suffix == ".zarr" else 0)


LAYERS = ["--layers", "layer1,layer2", "--layer-dtype", "layer2=int8"]


@pytest.mark.parametrize(
    ("store", "dtype", "n_views", "layers"),
    [
        ("feats.zarr", "float16", 1, []),
        ("feats.h5", "int8", 1, []),
        ("v.zarr", "int8", 3, []),
        ("l.zarr", "float16", 2, LAYERS),
        ("l.h5", "bfloat16", 1, LAYERS),
    ],
)
def test_an_extraction_takes_what_was_planned(
    phase1: Path, store: str, dtype: str, n_views: int, layers: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 2**17)
    options = ["--ckpt", phase1, "--store", store, "--dtype", dtype, "--batch-size", 32, "--views", n_views]
    options += layers
    content = planned(*options)
    assert not Path(store).exists()
    succeed("extract", *options, "--device", "cpu")
    choice, found = chosen(content), bytes_of_arrays(Path(store))
    assert (choice["dtype"], choice["exact"]) == (dtype, True)
    assert content["layers"] == ({"layer1": [32, 32, 4], "layer2": [16, 16, 8]} if layers else {})
    assert choice["n_bytes"] == choice["peak_bytes"] == sum(found.values())
    assert choice["n_files"] == len(files_of(Path(store)))
    if Path(store).is_dir():
        shards = [f for f in files_of(Path(store)) if f.name != "zarr.json"]
        assert choice["n_shards"] == len(shards) > len(found)


def test_the_compressed_size_of_layers_is_measured_on_their_own_maps(
    phase1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps of an earlier layer compress in another way than the last ones; of all 32 images, however slow."""
    monkeypatch.setattr(extraction, "sample_maps", lambda *of: sample_maps(*of[:2], 1e9))
    options = ["--ckpt", phase1, "--store", "s.zarr", "--layers", "layer1", "--codec", "zstd"]
    content = planned(*options)
    succeed("extract", *options, "--device", "cpu")
    assert chosen(content)["n_bytes"] == pytest.approx(
        sum(bytes_of_arrays(Path("s.zarr")).values()), rel=0.05
    )
    said = succeed("store", "plan", *QUICK, *options).stdout
    assert "maps of earlier layers: layer1 32×32×4\n" in said


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_sizes_from_a_sample_come_close(
    dtype: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("made_store.CODEC", codec)
    rows = made_rows()
    layouts = made_layouts(dtype=dtype, codec=codec)
    maps = rows["train/feature_map"].astype(np.float32)
    packing = measure_packing(maps, dtype, layouts["train/feature_map"])
    assert packing.share < 1.1
    found, sizes = {}, {}
    seen = watch_folder(monkeypatch, Path("s.h5.unfinished"))
    for suffix in (".zarr", ".h5"):
        write_made(Path(f"s{suffix}"), made_plan(dtype=dtype), rows)
        size = store_size(suffix, layouts, packing.share)
        found[suffix], sizes[suffix] = sum(bytes_of_arrays(Path(f"s{suffix}")).values()), size.n_bytes
        assert size.n_bytes == pytest.approx(found[suffix], rel=0.03)
    # The chunks are the same in both; the rest is known beforehand.
    assert sizes[".zarr"] - sizes[".h5"] == found[".zarr"] - found[".h5"]
    # Besides the rows there are begun.json and HDF5's pages, which matter in so small a store.
    assert size.n_bytes * 1.9 < size.peak_bytes < max(seen) < size.peak_bytes + 250_000


def watch_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[int]:
    """Record the bytes in a folder at every sync."""
    seen, fsync = [0], os.fsync

    def size(path: Path) -> int:
        try:
            return path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # renamed by another thread
            return 0

    def noting(file: int) -> None:
        fsync(file)
        seen.append(sum(size(path) for path in folder.rglob("*")))

    monkeypatch.setattr(os, "fsync", noting)
    return seen


def test_a_disk_that_is_too_small_is_warned_of(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--dataset", "imagefolder", "--root", small_root, "--image-size", 16, *TINY]
    options += ["--imbalance-factor", 3, "--store", "new/feats.zarr"]
    needed = chosen(planned(*options))["peak_bytes"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(needed, 0, needed))
    assert planned(*options)["warnings"] == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(needed, 1, needed - 1))
    result = succeed("store", "plan", *QUICK, *options)
    (line,) = result.stderr.splitlines()
    assert line.startswith("tailcache: warning: new/feats.zarr: takes")
    assert "--dtype int8 --codec none" in line
    assert "--dtype float16 --codec none" not in line
    assert "too large" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines() if not line.startswith("/")) <= 100
    result = run("store", "plan", "--json", *QUICK, *options)
    content = json.loads(result.stdout)
    assert (result.exit_code, len(content["warnings"])) == (0, 1)
    assert (content["disk"], chosen(content)["extract_seconds"], chosen(content)["fits"]) == (
        None,
        None,
        False,
    )
    assert {c["dtype"] for c in content["choices"] if c["fits"]} >= {"int8", "float8_e4m3"}


@pytest.mark.parametrize("moment", ["_write", "_read_in_order", "gather"])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.EIO, "I/O error")], ids=["ctrl-c", "error"]
)
def test_what_the_measurement_wrote_is_gone(moment, error, tmp_path, monkeypatch) -> None:
    seen = []

    def breaking(*_: object) -> None:
        seen.extend(path.name for path in tmp_path.iterdir())
        raise error

    monkeypatch.setattr(f"finetune.forecast.disk.{moment}", breaking)
    result = run("store", "plan", *QUICK, *TINY)
    assert [name.startswith(".tailcache-plan-") for name in seen] == [True]
    assert list(tmp_path.iterdir()) == []
    interrupted = isinstance(error, KeyboardInterrupt)
    assert result.exit_code == (130 if interrupted else 2)
    assert len(result.stderr.splitlines()) == 1
    assert ("interrupted" if interrupted else f"{tmp_path}: cannot be measured (I/O error)") in result.stderr


def test_measuring_takes_a_share_of_the_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 40 * 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free, 0, free))
    found = measure_disk(tmp_path, block_bytes=2**18, row_bytes=3000, seconds=600)
    assert 0.8 * FREE_SHARE * free < found.n_bytes <= FREE_SHARE * free
    found = measure_disk(tmp_path, block_bytes=2**30, row_bytes=3000, seconds=600)
    assert found.n_bytes <= FREE_SHARE * free
    assert measure_disk(tmp_path, block_bytes=2**18, row_bytes=free, seconds=600) is None
    assert list(tmp_path.iterdir()) == []
