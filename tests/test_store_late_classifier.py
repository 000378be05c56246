"""Stores whose FC layer follows from their rows: written, killed at every step, resumed, damaged."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from bit_flips import FlipCampaign
from dying import in_child
from faults import readable
from made_late import DIGEST, SMALL, fill_rows, finish_late, late_plan, late_rows, make_late
from made_store import contents, made_plan, write_made, written
from rich.progress import Progress
from s3_server import in_process

from store.drafts.lifecycle import draft_folder
from store.errors import StoreError
from store.reader import FeatureStore
from store.schema import MAP_DTYPES
from store.storage.s3 import Bucket
from store.verify import verify
from store.writer import StoreWriter, write_store

QUIET = Progress(disable=True)
WAYS = ("s.zarr", "s.h5", "packed.zarr", "packed.h5")
CAMPAIGN = """
import sys, store.layout, s3_campaign
from made_late import make_late
from made_store import stopped_clock
s3_campaign.make_store = make_late
store.layout.BLOCK_BYTES = 1024
with stopped_clock():
    print(s3_campaign.campaign(sys.argv[1], int(sys.argv[2]), False))
"""


@pytest.fixture(params=WAYS)
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where to write a store of several blocks."""
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 1024)
    monkeypatch.setattr("made_store.CODEC", "zstd" if "packed" in request.param else "none")
    monkeypatch.setattr(os, "fsync", lambda file: None)
    return tmp_path / request.param


@pytest.mark.parametrize("dtype", MAP_DTYPES)
def test_a_finished_store_is_as_any_other(path, dtype):
    make_late(path, dtype=dtype)
    store = FeatureStore(path)
    assert list(verify(store, QUIET)) == []
    assert store.provenance["checkpoint"] == {"sha256": DIGEST}
    assert store.provenance["fit"][1] == "é"
    assert store.provenance["identity"] == {"precision": "fp32"}
    assert "reserved" not in store.provenance
    other = path.with_name(f"other{path.suffix}")
    write_made(other, made_plan(SMALL, dtype), late_rows(dtype))
    usual = FeatureStore(other)
    shapes = [{name: (a.shape, a.dtype) for name, a in of.arrays.items()} for of in (store, usual)]
    assert shapes[0] == shapes[1]
    assert store.attributes["block_rows"] == usual.attributes["block_rows"]
    assert (store.arrays["train/feature_map"].read() == usual.arrays["train/feature_map"].read()).all()
    assert store.attributes.keys() == usual.attributes.keys()


@pytest.mark.forks
@pytest.mark.parametrize("path", ["s.zarr", "s.h5", "packed.h5"], indirect=True)
def test_killed_before_every_durable_call_and_resumed_late(path):
    whole = written(path, make_late)
    with write_store(path, late_plan(), False, False) as writer:
        fill_rows(writer, late_rows())  # other tests kill until here
    rows = path.with_name("rows")
    shutil.copytree(draft_folder(path), rows)
    n_kills, step = 0, 3 if path.suffix == ".zarr" else 1  # resuming, it writes all metadata again
    while in_child(lambda: make_late(path, resume=True), die_at=step * n_kills + 1):
        n_kills += 1
        assert readable(path) == path.exists()  # whole, or absent from its path
        for unfinished in draft_folder(path).glob(f"*{path.suffix}"):
            if readable(unfinished):  # if it says complete, it is
                assert contents(unfinished) == whole
        make_late(path, resume=True)
        assert contents(path) == whole
        assert not draft_folder(path).exists()
        path.unlink() if path.is_file() else shutil.rmtree(path)
        shutil.copytree(rows, draft_folder(path))
    assert n_kills >= 10


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_the_layer_is_derived_once(path, dtype, monkeypatch):
    whole = written(path, lambda other: make_late(other, dtype=dtype))

    class StopError(Exception):
        pass

    def stop(writer: StoreWriter, block: int, cam: np.ndarray) -> None:
        if block == 1:
            raise StopError
        write_cams(writer, block, cam)

    write_cams = StoreWriter.write_cams
    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "write_cams", stop)
        with pytest.raises(StopError):
            make_late(path, dtype=dtype)
    with write_store(path, late_plan(dtype), True, False) as writer:
        assert writer.has_classifier
        assert writer.missing_cams()[0] == 1
        assert writer.missing("train") == []
        fill_rows(writer, late_rows(dtype))
        finish_late(writer)
    assert contents(path) == whole


def test_a_draft_that_was_damaged_is_not_derived_from(path):
    with write_store(path, late_plan(), False, False) as writer:
        fill_rows(writer, late_rows())
    folder = draft_folder(path)
    with write_store(path, late_plan(), True, False) as writer:
        rows = np.concatenate([*writer.read_back("train/pooled")])
        assert (rows == late_rows()["train/pooled"]).all()
    pattern = rows[3].tobytes()
    file = next(f for f in folder.rglob("*") if f.is_file() and pattern in f.read_bytes())
    content = bytearray(file.read_bytes())
    content[content.index(pattern)] ^= 1
    file.write_bytes(content)
    with (
        pytest.raises(StoreError, match=r"block 0 of train/pooled is damaged; pass --overwrite"),
        write_store(path, late_plan(), True, False) as writer,
    ):
        finish_late(writer)


@pytest.mark.parametrize("path", ["s.zarr", "s.h5"], indirect=True)
def test_flipped_bits_of_a_late_store_are_found(path):
    make_late(path)
    campaign = FlipCampaign(path)
    assert sum(campaign.one(np.random.default_rng(seed)) for seed in range(60)) > 20


def test_an_attribute_that_grew_is_refused_before_anything_changes(tmp_path, monkeypatch):
    with write_store(tmp_path / "s.h5", late_plan(), False, False) as writer:
        fill_rows(writer, late_rows())
        before = writer.provenance
        rows = {name: late_rows()[f"classifier/{name}"] for name in ("weight", "bias")}
        with pytest.raises(StoreError, match="does not change attributes in place"):
            writer.write_classifier(
                {f"classifier/{name}": value for name, value in rows.items()}, before | {"more": "x" * 500}
            )
    make_late(tmp_path / "s.h5", resume=True)
    assert list(verify(FeatureStore(tmp_path / "s.h5"), QUIET)) == []


def test_in_a_bucket_the_same_bytes_are_written_however_often_it_is_killed(bucket, tmp_path, monkeypatch):
    n_kills = int(in_process(CAMPAIGN, str(bucket), "40"))
    assert n_kills >= 2
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 1024)
    make_late(tmp_path / "s.zarr")
    assert isinstance(bucket, Bucket)
    assert bucket.read_all(bucket.sizes()) == contents(tmp_path / "s.zarr")
    make_late(bucket, resume=True)
