"""A converted store equals the one that would have been extracted in that form."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from bad_input import run, succeed
from made_conversion import FINE, OTHER, QUIET, converted, extracted, kill, twin
from made_store import committed, contents, make_store

import cli
from finetune.commands.options import option_fields
from store.arrays.compressed import PackedArray
from store.arrays.dtypes import MAY_BECOME
from store.arrays.raw import StoredArray
from store.checked import CheckedReader
from store.config import ConvertConfig
from store.drafts.lifecycle import draft_folder
from store.layout import Chunking, store_layout
from store.reader import FeatureStore
from store.schema import SCALED, STREAMED
from store.verify import verify

pytestmark = pytest.mark.usefixtures("several_blocks")
PAIRS = [(was, now) for was, may in MAY_BECOME.items() for now in may]


def assert_sound(path: Path) -> None:
    assert list(verify(FeatureStore(path), QUIET)) == []


@pytest.mark.parametrize(("was", "now"), PAIRS)
def test_every_dtype_it_may_become_is_as_if_extracted(was, now):
    suffix = (".zarr", ".h5")[PAIRS.index((was, now)) % 2]
    source = extracted(f"s{OTHER[suffix]}", was, "lz4" if was == "float16" else "none")
    target = converted(source, f"t{suffix}", dtype=now, codec="none")
    assert_sound(target)
    assert FeatureStore(target).map_dtype == now
    maps = FINE if was in SCALED else FINE | {"train/feature_map": FeatureStore(source).read_feature_map()}
    assert contents(target) == twin(target, rows=maps)


@pytest.mark.parametrize(
    ("suffix", "dtype", "codec"),
    [
        (".zarr", "float32", "none"),
        (".h5", "bfloat16", "zstd"),
        (".zarr", "int8", "lz4"),
        (".h5", "float8_e4m3", "none"),
    ],
)
def test_there_and_back_is_the_same_store(suffix, dtype, codec):
    source = extracted(f"s{suffix}", dtype, codec)
    other = {"codec": "lz4" if codec == "none" else "none", "chunk_kib": 1}
    there = converted(source, f"t{OTHER[suffix]}", **other, **({} if dtype in SCALED else {"block_mib": 1}))
    assert_sound(there)
    back = converted(there, f"u{suffix}", codec=codec)
    assert contents(back) == twin(back, codec)
    first, last = FeatureStore(source).arrays, FeatureStore(back).arrays
    for name in first.keys() - {"checksum/metadata"}:
        np.testing.assert_array_equal(last[name].read(), first[name].read(), strict=True)
    if suffix == ".zarr":
        before, after = contents(source), contents(back)
        assert {name for name in before if before[name] != after[name]} == {
            "zarr.json",
            "checksum/metadata/c/0",
        }


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_straight_copies_between_like_containers(suffix):
    source = extracted(f"s{suffix}", codec="zstd")
    target = converted(source, f"t{suffix}")
    assert contents(target) == twin(target, "zstd")


def test_chunks_and_blocks_of_the_sizes_asked_for():
    source = extracted("s.zarr")
    target = converted(source, "t.zarr", block_mib=1, chunk_kib=1)
    (extent,) = FeatureStore(target).arrays["train/feature_map"].extents
    shard = json.loads((target / "train/feature_map/zarr.json").read_text())
    row_bytes = 3 * 3 * 6 * 2
    assert extent.stop == 44
    assert shard["codecs"][0]["configuration"]["chunk_shape"] == [1024 // row_bytes - 1, 3, 3, 6]
    assert_sound(converted(target, "u.h5"))


@pytest.mark.parametrize("dtype", SCALED)
def test_blocks_of_lossy_maps_stay_whatever_made_them(dtype):
    wide = converted(extracted("s.h5", "float32"), "t.h5", dtype=dtype, block_mib=1)
    copy = converted(wide, "u.zarr", codec="lz4")
    assert_sound(copy)
    was, now = FeatureStore(wide), FeatureStore(copy)
    assert now.block_rows("train/feature_map") == was.block_rows("train/feature_map") == 64
    for name in ("train/feature_map", "train/feature_map_scale"):
        np.testing.assert_array_equal(now.arrays[name].read(), was.arrays[name].read(), strict=True)


@pytest.mark.parametrize("block_bytes", [1, 10_000, 2**20, 2**40])
def test_a_block_asked_for_is_never_larger(block_bytes):
    sizes = {"train": {"N": 5000, "H": 7, "W": 7, "C": 8}, "test": {"N": 1, "H": 7, "W": 7, "C": 8}}
    layouts = store_layout(sizes, 3, "bfloat16", 128, chunking=Chunking(block_bytes=block_bytes))
    layout = layouts["train/feature_map"]
    rows = min(layout.block_rows, 5000)
    assert rows * layout.row_bytes <= block_bytes or rows == 1
    assert 2 * rows * layout.row_bytes > block_bytes or rows == 5000
    assert layouts["test/pooled"].block_rows == 1


@pytest.mark.parametrize("n_commits", [1, 4])
@pytest.mark.parametrize(
    ("was", "target", "options"),
    [
        (".zarr", "t.h5", {"dtype": "float16"}),
        (".h5", "t.zarr", {"dtype": "int8", "codec": "zstd"}),
        (".zarr", "t.h5", {"dtype": "float8_e4m3", "codec": "lz4"}),
    ],
    ids=["h5", "zarr", "packed.h5"],
)
def test_killed_and_resumed_is_as_if_never_stopped(was, target, options, n_commits):
    source = extracted(f"s{was}", "float32")
    kill(source, target, n_commits, **options)
    assert not Path(target).exists()
    kill(source, target, n_commits + 1, **options, resume=True)  # again, one block later
    converted(source, target, **options, resume=True)
    assert contents(Path(target)) == twin(Path(target), options.get("codec", "none"))
    assert not draft_folder(Path(target)).exists()


def recorded_reads(monkeypatch) -> list[tuple[str, int, int]]:
    """Record array, first row and end of every read of streamed rows from now on."""
    reads = []

    def recording(read):
        def recorded(array, start=0, stop=None):
            if array.name.split("/")[-1] in STREAMED and not array.name.startswith("checksum/"):
                reads.append((array.name, start, array.shape[0] if stop is None else stop))
            return read(array, start, stop)

        return recorded

    for kind in (StoredArray, PackedArray):
        monkeypatch.setattr(kind, "read", recording(kind.__dict__["read"]))
    return reads


@pytest.mark.parametrize("codec", ["none", "lz4"])
@pytest.mark.parametrize("options", [{}, {"block_mib": 1}])
def test_reads_one_block_at_a_time_and_each_once(monkeypatch, codec, options):
    source = extracted("s.zarr", codec=codec)
    reads = recorded_reads(monkeypatch)
    converted(source, "t.h5", **options)
    assert {(name, *block) for name, *block in reads} == set(reads)
    assert len(reads) == len(set(reads)) == 3 * 3 + 2  # three blocks of train, val and test of one each
    assert max(stop - start for _, start, stop in reads) <= 24


def test_resuming_reads_only_what_is_missing(monkeypatch):
    source = extracted("s.h5", "float32")
    kill(source, "t.h5", 4)
    done = {record["block"] for record in committed(draft_folder("t.h5")) if record["group"] == "train"}
    reads = recorded_reads(monkeypatch)
    converted(source, "t.h5", resume=True)
    blocks = list(CheckedReader(FeatureStore(source)).blocks("train/pooled"))
    missing = [block for i, block in enumerate(blocks) if i not in done]
    assert 0 < len(missing) < len(blocks)
    assert [tuple(block) for name, *block in reads if name == "train/cam"] == missing


def test_provenance_says_what_became_of_it():
    source = extracted("s.zarr", "float32", "zstd")
    Path("far").mkdir()
    once = converted(source, "far/t.h5", dtype="bfloat16")
    twice = converted(once, "u.zarr", codec="none")
    made, first = FeatureStore(source).provenance, FeatureStore(once).provenance
    assert first["checkpoint"] == made["checkpoint"] | {"relative_path": "../c.pt"}
    assert {**first, "identity": 0, "checkpoint": 0}.keys() == {**made, "converted": 0}.keys()
    steps = FeatureStore(twice).provenance["converted"]
    assert FeatureStore(twice).provenance["checkpoint"] == made["checkpoint"]
    assert steps[0] == first["converted"][0]
    assert steps[0]["from"] == {"path": str(source.resolve()), "dtype": "float32", "codec": "zstd"}
    assert [(step["dtype"], step["codec"]) for step in steps] == [("bfloat16", "zstd"), ("bfloat16", "none")]
    assert {"begun", "host", "versions"} <= steps[1].keys()


def test_interrupted_by_the_user_and_gone_on_with(monkeypatch):
    source = extracted("s.zarr", "float32")
    block = CheckedReader.block

    def interrupted(reader, name, start, stop):
        if (name, start) == ("train/cam", 32):
            raise KeyboardInterrupt
        return block(reader, name, start, stop)

    with monkeypatch.context() as patch:
        patch.setattr(CheckedReader, "block", interrupted)
        result = run("store", "convert", source, "t.h5")
    assert (result.exit_code, " t.h5\n" in result.stderr and "--resume" in result.stderr) == (130, True)
    target = converted(source, "t.h5", resume=True)
    assert contents(target) == twin(target)


def test_the_command_says_what_it_wrote():
    extracted("s.zarr", "float32")
    text = succeed("store", "convert", "s.zarr", "t.h5", "--dtype", "float16", "--codec", "lz4").stdout
    assert text.startswith("t.h5: feature maps in float16, codec lz4; 0.0 MiB in 1 files")
    content = json.loads(succeed("store", "convert", "s.zarr", "u.zarr", "--json").stdout)
    assert content == json.loads(succeed("store", "info", "u.zarr", "--json").stdout)


def test_options_and_config_fields_of_convert_are_the_same():
    parameters = {p.name for p in cli.store_group.commands["convert"].params}
    assert parameters - {"as_json"} == {field.name for field in dataclasses.fields(ConvertConfig)}
    fields = {field.name for field, *_ in option_fields(ConvertConfig)}
    assert parameters - {"as_json", "path", "target"} == fields


def test_made_stores_without_a_batch_size_are_converted_too():
    make_store(Path("s.zarr"))
    assert_sound(converted(Path("s.zarr"), "t.h5"))
