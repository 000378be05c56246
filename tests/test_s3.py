"""Stores in a bucket, on a real S3 server on loopback."""

import json
import socket
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import obstore
import pytest
import zarr
from bad_input import FEW_CLASSES, QUICK, refuse, succeed
from faults import refused_after_fork
from made_store import WITHOUT_VAL, contents, fill
from made_store import made_plan as made_any_plan
from made_store import made_rows as made_any_rows
from made_store import make_store as make_any_store
from rich.progress import Progress
from s3_server import CREDENTIALS, TESTS, in_process, make_bucket, s3_server

from store.arrays.gather import gather
from store.errors import StoreError
from store.reader import FeatureStore
from store.storage.cache import Cache, CacheError, open_cache
from store.storage.location import locate
from store.storage.s3 import Bucket
from store.verify import verify
from store.writer import StoreWriter, write_store

MAPS = "train/feature_map"
made_plan, made_rows, make_store = (  # fewer requests
    partial(made, sizes=WITHOUT_VAL) for made in (made_any_plan, made_any_rows, make_any_store)
)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        make_bucket(address, "bucket")
        yield address


@pytest.fixture
def bucket(server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty place for a store in several blocks."""
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 2048)
    return locate(f"s3://bucket/{abs(hash(request.node.name))}/s.zarr")


def objects(bucket: Bucket) -> dict[str, bytes]:
    return bucket.read_all(bucket.sizes())


def count_calls(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """The keys that are asked of obstore from now on by some of its functions."""
    keys = []
    for name in names:
        call = getattr(obstore, name)

        def counted(client, key, *args, call=call, **kwargs):
            keys.append(key)
            return call(client, key, *args, **kwargs)

        monkeypatch.setattr(obstore, name, counted)
    return keys


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
def test_rows_come_in_the_order_asked_for(bucket, tmp_path, monkeypatch, codec, cached):
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
    gather(array, np.arange(44))  # every object is proved once
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
    refuse("store", "convert", bucket, f"{bucket}/sub.zarr", says=["lies in the store to convert"])


@pytest.mark.parametrize(("step", "overwrite"), [(20, False), (40, True)])
def test_killed_and_resumed(bucket, step, overwrite):
    """At every step-th change; `make soak` kills at each of them."""
    code = (TESTS / "s3_campaign.py").read_text()
    n_kills = int(in_process(code, str(bucket), json.dumps([step, overwrite])))
    assert n_kills >= 90 // step


def test_a_writer_that_lives_is_not_disturbed(bucket, monkeypatch):
    monkeypatch.setattr("store.drafts.s3_lock.LEASE", 0.3)  # of the writer; the others watch for 30 seconds
    with write_store(bucket, made_plan(), resume=False, overwrite=False) as writer:
        fill(writer, made_rows())
        code = """
import sys
from made_store import WITHOUT_VAL, make_store
from store.errors import StoreError
from store.storage.location import locate
try:
    make_store(locate(sys.argv[1]), sizes=WITHOUT_VAL, **{sys.argv[2]: True})
except StoreError as error:
    print(error)
"""
        for options in ("resume", "overwrite"):
            assert "is writing this store; wait for it" in in_process(code, str(bucket), options)
        writer.finish()
    assert list(verify(FeatureStore(bucket), Progress(disable=True))) == []


def begin(bucket: Bucket, holder: dict) -> None:
    """Leave a store that somebody began."""
    with write_store(bucket, made_plan(), resume=False, overwrite=False) as writer:
        fill(writer, made_rows())  # and is left without being finished
    bucket.beside(".unfinished").write("lock.json", [json.dumps(holder).encode()])


def test_a_reader_is_told_how_to_go_on_with_a_store_that_was_begun(bucket):
    begin(bucket, {})
    with pytest.raises(StoreError, match=r"was begun and is not finished .*s.zarr.unfinished.; go on with"):
        FeatureStore(bucket)


def test_the_lock_of_a_dead_host_is_taken_over(bucket, monkeypatch):
    monkeypatch.setattr("store.drafts.s3_lock.LEASE", 0.05)
    begin(bucket, {"host": "elsewhere", "pid": 1, "token": "x"})
    make_store(bucket, resume=True)
    assert not bucket.beside(".unfinished").sizes()


def test_a_number_of_another_container_says_nothing(bucket, monkeypatch):
    """A process that this one cannot see may live: its lock is watched, not taken at once."""
    begin(bucket, {"host": socket.gethostname(), "pid": 2**22 + 1, "numbered_by": ["another"], "token": "x"})
    watched, read = [], Bucket.read_tagged

    def renewed(self, name):
        if name == "lock.json":
            watched.append(name)
            holder = {"host": "here", "pid": 2**22 + 1, "numbered_by": ["another"], "renewals": len(watched)}
            self.write(name, [json.dumps(holder).encode()])
        return read(self, name)

    monkeypatch.setattr("store.drafts.s3_lock.LEASE", 5.0)
    monkeypatch.setattr(Bucket, "read_tagged", renewed)
    with pytest.raises(StoreError, match="is writing this store"):
        make_store(bucket, resume=True)
    assert len(watched) > 1


def test_the_lock_of_a_living_host_is_respected(bucket, monkeypatch):
    begin(bucket, {"host": "elsewhere", "pid": 1, "token": "x"})
    side, read = bucket.beside(".unfinished"), Bucket.read_tagged

    def renewed(self, name):
        found = read(self, name)
        if name == "lock.json":
            side.write(name, [json.dumps({"host": "elsewhere", "pid": 1, "token": found[1]}).encode()])
        return found

    monkeypatch.setattr("store.drafts.s3_lock.LEASE", 5.0)
    monkeypatch.setattr(Bucket, "read_tagged", renewed)
    with pytest.raises(StoreError, match="process 1 of elsewhere is writing this store"):
        make_store(bucket, resume=True)


def test_an_answer_that_gets_lost_does_not_lose_the_lock(bucket, monkeypatch):
    """The server renews, the answer is lost, the client asks again, and is told that the condition fails."""
    monkeypatch.setattr("store.drafts.s3_lock.LEASE", 0.05)
    renewals, write_if = threading.Event(), Bucket.write_if

    def unheard(self, name, content, tag):
        written = write_if(self, name, content, tag)
        if tag is None:
            return written
        renewals.set()
        return None

    monkeypatch.setattr(Bucket, "write_if", unheard)
    with write_store(bucket, made_plan(), resume=False, overwrite=False) as writer:
        renewals.wait()
        complete(writer)
    assert list(verify(FeatureStore(bucket), Progress(disable=True))) == []


@pytest.mark.parametrize("content", [b"garbage", b"[]", b"{}"])
def test_a_damaged_beginning_can_be_replaced(bucket, content):
    begin(bucket, {"host": "elsewhere", "pid": 1})
    bucket.beside(".unfinished").delete(["lock.json"])
    bucket.beside(".unfinished").write("begun.json", [content])
    with pytest.raises(StoreError, match=r"begun\.json is damaged; pass --overwrite to begin anew"):
        make_store(bucket, resume=True)
    make_store(bucket, overwrite=True)
    assert list(verify(FeatureStore(bucket), Progress(disable=True))) == []


def test_who_lost_the_lock_completes_nothing(bucket):
    """Not even between two renewals: another host took over what had every row."""
    with pytest.raises(StoreError, match="another process has taken this store over"):
        finish_late(bucket)
    assert json.loads(bucket.read("zarr.json"))["attributes"]["complete"] is False
    side = bucket.beside(".unfinished")
    assert {"begun.json", "lock.json"} <= side.sizes().keys()


def finish_late(bucket: Bucket) -> None:
    with write_store(bucket, made_plan(), resume=False, overwrite=False) as writer:
        fill(writer, made_rows())
        bucket.beside(".unfinished").write("lock.json", [b'{"host": "elsewhere", "pid": 1, "token": "x"}'])
        writer.finish()


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


def test_who_lost_the_lock_writes_no_more_records(bucket, monkeypatch):
    monkeypatch.setattr("store.drafts.s3_lock.LEASE", 0.05)
    with write_store(bucket, made_plan(), resume=False, overwrite=False) as writer:
        (renewing,) = (thread for thread in threading.enumerate() if thread.name == "store lock")
        bucket.beside(".unfinished").write("lock.json", [b'{"host": "elsewhere", "pid": 1}'])
        renewing.join()
        with pytest.raises(StoreError, match="another process has taken this store over"):
            complete(writer)
    assert "zarr.json" in bucket.sizes()


def complete(writer: StoreWriter) -> None:
    fill(writer, made_rows())
    writer.finish()


def damage(bucket: Bucket, name: str, how: str) -> None:
    content = bucket.read(name)
    match how:
        case "missing":
            bucket.delete([name])
        case "cut":
            bucket.write(name, [content[:-7]])
        case "flipped":
            bucket.write(name, [bytes([content[0] ^ 1]) + content[1:]])


@pytest.mark.parametrize(
    ("how", "says"), [("missing", "is missing"), ("cut", "has"), ("flipped", "are not those")]
)
def test_damaged_objects_are_found_and_named(bucket, how, says):
    make_store(bucket)
    damage(bucket, "train/cam/c/1/0/0", how)
    (fault,) = (str(fault) for fault in verify(FeatureStore(bucket), Progress(disable=True)))
    assert fault.startswith("train/cam: rows 16 to 31")
    assert says in fault


def test_what_is_in_the_way_is_spared(bucket):
    bucket.write("thesis.txt", [b"three years of work"])
    with pytest.raises(Exception, match=r"already exists and is no store alone \(it holds thesis\.txt\)"):
        make_store(bucket, overwrite=True)
    zarr.create_group(bucket.zarr_store)
    bucket.delete(["thesis.txt"])
    with pytest.raises(Exception, match=r"is no store alone \(it holds zarr\.json\)"):
        make_store(bucket, overwrite=True)
    assert set(bucket.sizes()) == {"zarr.json"}


def test_an_error_before_the_first_rows_leaves_nothing(bucket):
    with pytest.raises(ZeroDivisionError), write_store(bucket, made_plan(), False, False):
        raise ZeroDivisionError
    assert not bucket.sizes()
    assert not bucket.beside(".unfinished").sizes()


@pytest.mark.parametrize(
    ("store", "says"),
    [
        ("s3://bucket/nothing.zarr", "no such store; `extract --store s3://bucket/nothing.zarr` makes it"),
        ("s3://no-such-bucket/s.zarr", "s3://no-such-bucket: there is no such bucket; make it"),
        ("s3://bucket", "expected a path, or s3://bucket/name.zarr"),
        ("https://bucket/s.zarr", "unknown address"),
        ("s3:/bucket/s.zarr", "unknown address"),
        ("s3://bucket/a/../s.zarr", "holds . or .. or an empty name"),
        ("s3://bucket/a//s.zarr", "holds . or .. or an empty name"),
        ("s3://bucket/s%2e.zarr", "one of % # ?"),
        ("s3://bucket/s#1.zarr", "one of % # ?"),
    ],
)
def test_addresses_that_hold_nothing(bucket, in_tmp_path, store, says):
    refuse("store", "info", store, says=[says])


def test_only_zarr_lies_in_a_bucket(bucket, small_ckpt, in_tmp_path):
    command = ["extract", "--ckpt", small_ckpt, "--store", "s3://bucket/s.h5"]
    refuse(*command, says=["s3://bucket/s.h5: only zarr stores can lie in a bucket", "ends in .zarr"])


def test_a_server_that_does_not_answer(bucket, in_tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("store.storage.s3.IMPATIENT", {"max_retries": 0})
    refuse("store", "info", bucket, says=[bucket, "AWS_ENDPOINT_URL", "check address and credentials"])


def test_s3_without_its_package(bucket, in_tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "obstore"]:
        monkeypatch.setitem(sys.modules, name, None)
    refuse("store", "info", bucket, says=["s3://: needs the package obstore; pip install 'tailcache[s3]'"])


def test_a_forked_child_is_refused(bucket):
    make_store(bucket)
    array = FeatureStore(bucket).arrays[MAPS]
    assert refused_after_fork(array)


def test_the_cache_answers_the_second_time(bucket, tmp_path, monkeypatch):
    make_store(bucket)
    first = FeatureStore(bucket, open_cache(str(tmp_path), 1))
    gather(first.arrays[MAPS], np.arange(44))
    assert (tmp_path / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    again = FeatureStore(bucket, Cache(tmp_path, 2**30))
    keys = count_calls(monkeypatch, "get", "get_range", "get_ranges")
    np.testing.assert_array_equal(gather(again.arrays[MAPS], np.arange(44)), made_rows()[MAPS])
    assert keys == []


def test_the_cache_is_bounded_and_drops_what_was_used_longest_ago(bucket, tmp_path, monkeypatch):
    make_store(bucket)
    (tmp_path / "thesis.txt").write_text("three years of work")
    shards = [size for name, size in bucket.sizes().items() if name.startswith(f"{MAPS}/c/")]
    bound = 2 * max(shards)
    cache = Cache(tmp_path, bound)
    array = FeatureStore(bucket, cache).arrays[MAPS]
    monkeypatch.setattr("store.storage.mmap_files.MAPPED_FILES", 0)  # every use opens the copy
    keys = count_calls(monkeypatch, "get")
    for row in (0, 16, 0, 32, 0, 16):  # the third shard drives out the second, not the first
        gather(array, np.array([row]))
        assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) <= bound
    blocks = [key.rsplit("/c/")[1][0] for key in keys]
    assert blocks == ["0", "1", "2", "1"]
    assert (tmp_path / "thesis.txt").exists()


def test_a_cache_removes_nothing_of_others(bucket, small_store, tmp_path, in_tmp_path):
    photos = tmp_path / "mine" / "photos"
    photos.mkdir(parents=True)
    (photos / "thesis.jpg").write_text("three years of work")
    make_store(bucket)
    command = ["finetune", "--store", small_store, *QUICK, "--cache"]
    refuse(*command, "mine", says=["mine: is no cache of ours (it holds photos); name a folder"])
    refuse(*command, "", says=["--cache ''", "name one that does not exist yet"])
    refuse(*command, "mine/photos/thesis.jpg", says=["thesis.jpg: cannot be used as --cache", "name another"])
    cache = Cache(tmp_path / "mine", max(bucket.sizes().values()))  # even so
    gather(FeatureStore(bucket, cache).arrays[MAPS], np.arange(44))
    assert (photos / "thesis.jpg").exists()


def test_a_copy_that_was_cut_is_fetched_again(bucket, tmp_path):
    make_store(bucket)
    cache = open_cache(str(tmp_path), 1)
    gather(FeatureStore(bucket, cache).arrays[MAPS], np.arange(44))
    for copy in tmp_path.glob("*/*feature_map*"):
        copy.write_bytes(copy.read_bytes()[:-9])
    again = FeatureStore(bucket, open_cache(str(tmp_path), 1)).arrays[MAPS]
    np.testing.assert_array_equal(gather(again, np.arange(44)), made_rows()[MAPS])
    damage(bucket, f"{MAPS}/c/1/0/0/0", "cut")  # the store's own fault ends the asking
    with pytest.raises(StoreError, match=r"feature_map/c/1/0/0/0: has"):
        gather(FeatureStore(bucket, open_cache(str(tmp_path / "other"), 1)).arrays[MAPS], np.arange(44))


def test_the_cache_never_answers_for_an_older_store(bucket, tmp_path):
    make_store(bucket)
    gather(FeatureStore(bucket, Cache(tmp_path, 2**30)).arrays[MAPS], np.arange(44))
    rows = made_rows()
    rows[MAPS] = rows[MAPS][::-1]
    with write_store(bucket, made_plan(note="other"), resume=False, overwrite=True) as writer:
        fill(writer, rows)
        writer.finish()
    read = gather(FeatureStore(bucket, Cache(tmp_path, 2**30)).arrays[MAPS], np.arange(44))
    np.testing.assert_array_equal(read, rows[MAPS])


def test_a_cache_that_is_too_small(bucket, small_store, tmp_path, in_tmp_path):
    make_store(bucket)
    array = FeatureStore(bucket, Cache(tmp_path / "cache", 100)).arrays[MAPS]
    with pytest.raises(CacheError, match=r"cannot hold .* bytes; raise --cache-gib"):
        gather(array, np.array([0]))
    command = ["finetune", "--store", small_store, *QUICK, "--cache", "c", "--cache-gib"]
    for gib in ("0", "nan"):
        refuse(*command, gib, says=[f"--cache-gib {gib}: must be above 0"])


def test_many_threads_share_one_cache(bucket, tmp_path, monkeypatch):
    make_store(bucket)
    monkeypatch.setattr("store.storage.mmap_files.MAPPED_FILES", 1)
    size = max(bucket.sizes().values())
    array = FeatureStore(bucket, Cache(tmp_path, size)).arrays[MAPS]
    expected, generator = made_rows()[MAPS], np.random.default_rng(0)
    for _ in range(5):
        rows = generator.integers(0, 44, 60)
        np.testing.assert_array_equal(gather(array, rows, n_threads=4), expected[rows])


def test_extraction_goes_on_in_a_bucket(bucket, small_ckpt, small_store):
    """Killed through the command itself, at a record of its log."""
    code = """
import os, signal, sys
import extract.dump, store.layout
from bad_input import run, succeed
from dying import die_at_commit
from store.drafts.s3 import S3CommitLog
bucket, *command = sys.argv[1:]
store.layout.BLOCK_BYTES = 1
child = os.fork()
if child == 0:
    die_at_commit(3, S3CommitLog)
    run(*command)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
assert run("store", "info", bucket).exit_code == 2
succeed(*command, "--resume")
"""
    command = ["extract", "--ckpt", str(small_ckpt), "--store", str(bucket), "--device", "cpu"]
    in_process(code, str(bucket), *command, "--batch-size", "4", "--views", "2")
    sampled = ["--sample", 99, "--ckpt", small_ckpt, "--device", "cpu"]
    assert "54 rows extracted anew agree" in succeed("store", "verify", bucket, *sampled).stdout
    assert "2 views of each training image" in succeed("store", "info", bucket).stdout
    ours, theirs = FeatureStore(bucket), FeatureStore(small_store)
    np.testing.assert_allclose(ours.read("test").pooled, theirs.read("test").pooled, atol=1e-5)
    for name in ("train/feature_map", "train/cam"):
        first = ours.arrays[name].read()[ours.read("train").view == 0]
        np.testing.assert_allclose(first, theirs.arrays[name].read(), atol=1e-5)
