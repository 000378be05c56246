"""Conversions that are refused: damaged sources, into themselves, to finer dtypes, other options."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from bad_input import refuse, run, succeed
from faults import full_disk
from made_conversion import FINE, OTHER, converted, extracted, kill, twin
from made_store import contents, made_plan

from store.arrays.dtypes import MAY_BECOME
from store.drafts.lifecycle import is_finished
from store.errors import StoreError
from store.reader import FeatureStore
from store.schema import MAP_DTYPES, SCALED

pytestmark = pytest.mark.usefixtures("several_blocks")


def flip(path: Path, name: str) -> int:
    """Damage a byte in the last run of rows of an array; return the first row of that run."""
    extent = FeatureStore(path).arrays[name].extents[-1]
    content = bytearray(extent.path.read_bytes())
    content[extent.offset + 1] ^= 1
    extent.path.write_bytes(content)
    return extent.start


@pytest.mark.parametrize(
    ("suffix", "name"),
    [
        (".zarr", "feature_map"),
        (".h5", "feature_map"),
        (".zarr", "feature_map_scale"),
        (".h5", "cam"),
        (".zarr", "pooled"),
        (".h5", "label"),
    ],
)
def test_damage_is_not_laundered_and_can_be_mended(suffix, name):
    source = extracted(f"s{suffix}", "int8")
    before = contents(source)
    start = flip(source, f"train/{name}")
    result = run("store", "convert", source, f"t{OTHER[suffix]}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"s{suffix}: train/{name}: rows {start} to " in result.stderr
    assert "do not match their checksum; put an intact copy in its place and continue" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not Path(f"t{OTHER[suffix]}").exists()
    for file, content in before.items():
        (source / file if suffix == ".zarr" else source).write_bytes(content)
    target = converted(source, f"t{OTHER[suffix]}", resume=True)
    assert contents(target) == twin(target)


@pytest.mark.parametrize(
    "name", ["classifier/bias", "test/view", "checksum/train/label", "checksum/metadata"]
)
def test_damage_seen_before_the_first_block_leaves_nothing(name):
    flip(extracted("s.zarr"), name)
    refuse("store", "convert", "s.zarr", "t.h5", says=["s.zarr: ", "do not match their checksum"])


def test_changed_attributes_and_cut_shards_are_refused():
    source = extracted("s.zarr", codec="zstd")
    whole = (source / "zarr.json").read_text()
    (source / "zarr.json").write_text(whole.replace('"a"', '"z"'))
    refuse("store", "convert", source, "t.h5", says=["s.zarr: its attributes, shapes or dtypes do not match"])
    (source / "zarr.json").write_text(whole)
    shard = FeatureStore(source).arrays["train/feature_map"].extents[0].path
    shard.write_bytes(shard.read_bytes()[:-9])
    refuse("store", "convert", source, "t.h5", says=["train/feature_map: rows 0 to ", "index of chunks is"])
    shutil.rmtree(source / "checksum/train/cam")
    refuse("store", "convert", source, "t.h5", says=["s.zarr: "])


def test_refusals_of_paths():
    source = extracted("s.zarr")
    Path("link.zarr").symlink_to("s.zarr")
    for target in (source, "link.zarr", source.resolve()):
        refuse("store", "convert", source, target, "--overwrite", says=[f"{target}: is the store to convert"])
    refuse(
        "store", "convert", source, "link.zarr/t.h5", says=["link.zarr/t.h5: is inside the store to convert"]
    )
    refuse("store", "convert", source, "t.zip", says=["t.zip: unknown container '.zip'; expected", ".h5"])
    refuse("store", "convert", "no.h5", "t.h5", says=["no.h5: no such store"])
    shutil.copytree(source, "t.h5.unfinished/replaced")
    says = ["is where t.h5 will be written, and would be lost"]
    refuse("store", "convert", "t.h5.unfinished/replaced", "t.h5", "--overwrite", says=says)
    extracted("old.h5")
    refuse("store", "convert", source, "old.h5", says=["old.h5: already exists; pass --overwrite"])
    Path("notes.h5").write_text("three years of work")
    refuse("store", "convert", source, "notes.h5", "--overwrite", says=["notes.h5: already exists and is no"])
    succeed("store", "convert", source, "old.h5", "--overwrite", "--dtype", "bfloat16")
    assert FeatureStore(Path("old.h5")).map_dtype == "bfloat16"


def test_an_unfinished_source_is_refused():
    kill(extracted("s.zarr"), "u.zarr", 2)
    refuse("store", "convert", "u.zarr", "t.h5", says=["u.zarr: is not finished", "--resume"])
    tree = "u.zarr.unfinished/u.zarr"
    refuse("store", "convert", tree, "t.h5", says=[f"{tree}: was never finished"])


@pytest.mark.parametrize("was", MAP_DTYPES)
def test_a_finer_dtype_is_refused_with_what_to_do(was):
    source = extracted("s.h5", was)
    refused = set(MAP_DTYPES) - set(MAY_BECOME[was])
    assert "float32" in refused or was == "float32"
    for now in refused:
        says = [
            f"feature maps are {was}, which can become",
            f"not {now}",
            f"extract again with --dtype {now}",
        ]
        refuse("store", "convert", source, "t.zarr", "--dtype", now, says=says)
    if was in SCALED:
        says = [f"{was} maps have scales for each block", "leave out --block-mib"]
        refuse("store", "convert", source, "t.zarr", "--block-mib", 1, says=says)


@pytest.mark.parametrize("option", ["--chunk-kib", "--block-mib"])
def test_sizes_out_of_range_are_refused(option):
    refuse("store", "convert", extracted("s.h5"), "t.h5", option, 0, says=[f"{option} 0: must be 1 or more"])


@pytest.mark.parametrize("value", [65_505, -np.inf, np.nan])
def test_what_a_dtype_cannot_hold_is_refused_by_row(value):
    rows = FINE | {"train/feature_map": FINE["train/feature_map"].copy()}
    rows["train/feature_map"][37, 2, 1, 4] = value
    source = extracted("s.h5", "float32", rows=rows)
    for now in ("float16", "int8", "float8_e4m3"):
        result = run("store", "convert", source, "t.h5", "--dtype", now, "--overwrite")
        says = f"s.h5: train/feature_map: row 37 has a feature of magnitude {abs(value):.6g}, but {now} ends"
        assert (result.exit_code, says in result.stderr) == (2, True), result.stderr
        assert not Path("t.h5").exists()
    if np.isfinite(value):
        converted(source, "t.h5", dtype="bfloat16", overwrite=True)


def test_resuming_as_another_conversion_is_refused_with_both_values():
    source = extracted("s.h5", "float32")
    kill(source, "t.zarr", 3, dtype="float16", codec="zstd")
    convert_ = ("store", "convert", source, "t.zarr", "--resume", "--codec")
    refuse(*convert_, "zstd", says=["another dtype (float16) than now (float32)"])
    refuse(*convert_, "lz4", "--dtype", "float16", says=["another codec (zstd) than now (lz4)"])
    cut = ("zstd", "--dtype", "float16", "--block-mib", 1)
    refuse(*convert_, *cut, says=["another block rows", "'train/cam': 16", "'train/cam': 64"])
    converted(source, "t.zarr", dtype="float16", codec="zstd", resume=True)
    before = contents(Path("t.zarr"))
    converted(source, "t.zarr", dtype="float16", codec="zstd", resume=True)
    assert contents(Path("t.zarr")) == before
    chunks = ("zstd", "--dtype", "float16", "--chunk-kib", 4)
    refuse(*convert_, *chunks, says=["another chunk rows"])
    other = extracted("other.h5", "float32", rows=FINE | {"test/pooled": FINE["test/pooled"] + 1})
    with pytest.raises(StoreError, match="another source"):
        converted(other, "t.zarr", dtype="float16", codec="zstd", resume=True)


def test_a_conversion_onto_a_full_disk_is_told_and_resumable():
    source = extracted("s.h5")
    with full_disk(3):
        result = run("store", "convert", source, "t.h5")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "t.h5: the disk is full after " in result.stderr
    assert result.stderr.endswith("make room, then run the same command with --resume\n")
    target = converted(source, "t.h5", resume=True)
    assert contents(target) == twin(target)


def test_an_extraction_does_not_take_it_for_its_own():
    target = converted(extracted("s.h5"), "t.zarr")
    with pytest.raises(StoreError, match=r"another precision \(None\) than now \(fp32\)"):
        is_finished(target, made_plan(), overwrite=False)
