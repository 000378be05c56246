"""Stores in a bucket, on a real S3 server on loopback: their content, and how they are read."""

import sys
from pathlib import Path

import numpy as np
import obstore.exceptions
import pytest
import zarr
from bad_input import FEW_CLASSES, QUICK, refuse, succeed
from faults import refused_after_fork
from made_bucket import MAPS, count_calls, damage, made_rows, make_store, objects
from made_store import contents
from made_store import make_store as make_any_store
from rich.progress import Progress

from store.arrays.gather import gather
from store.errors import StoreError
from store.reader import FeatureStore
from store.storage.cache import Cache
from store.storage.location import locate
from store.verify import verify


def refused_by_the_network(*_: object) -> None:
    raise obstore.exceptions.GenericError("error sending request")


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_bucket_holds_what_a_folder_does(bucket, tmp_path, monkeypatch, codec):
    monkeypatch.setattr("made_store.CODEC", codec)
    monkeypatch.setattr("store.layout.PACKED_CHUNK_BYTES", 512)
    make_any_store(bucket)
    make_any_store(tmp_path / "s.zarr")
    assert objects(bucket) == contents(tmp_path / "s.zarr")
    assert not bucket.beside(".unfinished").sizes()
    assert list(verify(FeatureStore(bucket), Progress(disable=True))) == []


@pytest.mark.parametrize("codec", ["none", "lz4"])
@pytest.mark.parametrize("cached", [False, True])
def test_rows_of_a_bucket_come_in_the_order_asked_for(bucket, tmp_path, monkeypatch, codec, cached):
    monkeypatch.setattr("made_store.CODEC", codec)
    monkeypatch.setattr("store.layout.PACKED_CHUNK_BYTES", 512)
    make_store(bucket)
    store = FeatureStore(bucket, Cache(tmp_path, 2**30) if cached else None)
    expected, generator = made_rows()[MAPS], np.random.default_rng(0)
    for n_rows in (0, 1, 7, 200):
        rows = generator.integers(0, len(expected), n_rows)
        np.testing.assert_array_equal(gather(store.arrays[MAPS], rows), expected[rows], strict=True)
    np.testing.assert_array_equal(store.arrays[MAPS].read(5, 41), expected[5:41], strict=True)


def test_neighbours_are_fetched_as_one(bucket, monkeypatch):
    make_store(bucket)
    array = FeatureStore(bucket).arrays[MAPS]
    gather(array, np.arange(44))  # every object is checked once
    keys = count_calls(monkeypatch, "get_ranges", "get")
    gather(array, np.arange(44)[::-1])
    assert len(keys) == len(array.extents) == 3
    gather(array, np.array([1, 3, 5, 20]))
    assert len(keys) == 5


def test_zarr_python_reads_it(bucket):
    make_store(bucket)
    root = zarr.open_group(bucket.zarr_store, mode="r")
    assert root.attrs["complete"] is True
    for name, value in made_rows().items():
        np.testing.assert_array_equal(root[name][:], value, strict=True)


def test_every_command_takes_an_address(bucket, small_ckpt, small_store, tmp_path, in_tmp_path):
    command = ["extract", "--ckpt", small_ckpt, "--store", bucket, "--device", "cpu"]
    assert f"{bucket}/train: feature maps" in succeed(*command).stdout
    refuse(*command, says=[f"{bucket}: already exists; pass --overwrite"])
    succeed(*command, "--resume")
    assert "complete" in succeed("store", "info", bucket).stdout
    assert succeed("store", "verify", bucket).stdout == f"{bucket}: sound\n"
    for store, options in {str(small_store): [], str(bucket): ["--cache", "cache"]}.items():
        succeed("finetune", "--store", store, "--out", Path(store).name, *QUICK, *FEW_CLASSES, *options)
    heads = [(tmp_path / name / "head.pt").read_bytes() for name in (small_store.name, "s.zarr")]
    assert heads[0] == heads[1]
    succeed(*command, "--overwrite")
    assert succeed("store", "verify", bucket).exit_code == 0


def test_stores_are_converted_into_a_bucket_and_out_of_it(bucket, small_store, in_tmp_path):
    succeed("store", "convert", small_store, bucket, "--block-mib", "1")
    succeed("store", "convert", bucket, "back.h5")
    for copy in (bucket, "back.h5"):
        assert succeed("store", "verify", copy).exit_code == 0
        ours, theirs = FeatureStore(locate(str(copy))), FeatureStore(small_store)
        for name in ("train/feature_map", "train/cam", "test/label"):
            np.testing.assert_array_equal(ours.arrays[name].read(), theirs.arrays[name].read())
    succeed("finetune", "--store", "back.h5", *QUICK, *FEW_CLASSES)  # finds the checkpoint
    refuse("store", "convert", bucket, bucket, says=["is the store to convert itself"])
    refuse("store", "convert", bucket, f"{bucket}/sub.zarr", says=["is inside the store to convert"])


def test_more_objects_than_one_request_deletes(bucket):
    """Names of absent objects count as well."""
    bucket.write_all({f"many/{i}": b"" for i in (0, 999, 1000)})
    bucket.delete([f"many/{i}" for i in range(1001)])
    assert not bucket.sizes()


def test_an_object_of_another_index_is_refused(bucket):
    make_store(bucket)
    name = "train/cam/c/1/0/0"
    content = bucket.read(name)
    bucket.write(name, [content[:-1] + bytes([content[-1] ^ 1])])
    with pytest.raises(StoreError, match="its index of chunks is damaged"):
        gather(FeatureStore(bucket).arrays["train/cam"], np.array([20]))


@pytest.mark.parametrize(
    ("how", "says"), [("missing", "is missing"), ("cut", "has"), ("flipped", "do not match")]
)
def test_damaged_objects_are_found_and_named(bucket, how, says):
    make_store(bucket)
    damage(bucket, "train/cam/c/1/0/0", how)
    (fault,) = (str(fault) for fault in verify(FeatureStore(bucket), Progress(disable=True)))
    assert fault.startswith("train/cam: rows 16 to 31")
    assert says in fault


@pytest.mark.parametrize(
    ("store", "says"),
    [
        ("s3://bucket/nothing.zarr", "no such store; `extract --store s3://bucket/nothing.zarr` writes one"),
        ("s3://no-such-bucket/s.zarr", "s3://no-such-bucket: no such bucket; create it"),
        ("s3://bucket", "expected a path, or s3://bucket/name.zarr"),
        ("https://bucket/s.zarr", "unknown address"),
        ("s3:/bucket/s.zarr", "unknown address"),
        ("s3://bucket/a/../s.zarr", "contains . or .. or an empty name"),
        ("s3://bucket/a//s.zarr", "contains . or .. or an empty name"),
        ("s3://bucket/s%2e.zarr", "one of % # ?"),
        ("s3://bucket/s#1.zarr", "one of % # ?"),
    ],
)
def test_addresses_that_hold_nothing(bucket, in_tmp_path, store, says):
    refuse("store", "info", store, says=[says])


def test_only_zarr_lies_in_a_bucket(bucket, small_ckpt, in_tmp_path):
    command = ["extract", "--ckpt", small_ckpt, "--store", "s3://bucket/s.h5"]
    refuse(*command, says=["s3://bucket/s.h5: only zarr stores can be written to a bucket", "ends in .zarr"])


def test_a_server_that_does_not_answer(bucket, in_tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("store.storage.s3.IMPATIENT", {"max_retries": 0})
    refuse("store", "info", bucket, says=[bucket, "AWS_ENDPOINT_URL", "check address and credentials"])


def test_s3_without_its_package(bucket, in_tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "obstore"]:
        monkeypatch.setitem(sys.modules, name, None)
    refuse("store", "info", bucket, says=["s3://: needs the package obstore; pip install 'tailcache[s3]'"])


def test_a_forked_child_is_refused_the_bucket(bucket):
    make_store(bucket)
    array = FeatureStore(bucket).arrays[MAPS]
    assert refused_after_fork(array)


def test_a_store_that_is_replaced_in_its_bucket_is_refused(bucket, monkeypatch, caplog):
    make_store(bucket)
    store = FeatureStore(bucket)
    store.check_not_replaced()
    root = bucket.read("zarr.json")
    bucket.write("zarr.json", [root.replace(b"float16", b"float32")])
    with pytest.raises(StoreError, match=r"s\.zarr: was replaced since it was opened; open it again"):
        store.check_not_replaced()
    bucket.delete(["zarr.json"])
    with pytest.raises(StoreError, match="was replaced since it was opened"):
        store.check_not_replaced()
    assert not caplog.messages


def test_a_bucket_that_does_not_answer_at_the_end_of_a_run_does_not_lose_it(bucket, monkeypatch, caplog):
    make_store(bucket)
    store = FeatureStore(bucket)
    monkeypatch.setattr("obstore.get", refused_by_the_network)
    store.check_not_replaced()
    (told,) = caplog.messages
    assert told.startswith(f"{bucket}: no answer from http")
    assert told.endswith("so whether the store was replaced since it was opened is unknown")
