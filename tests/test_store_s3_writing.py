"""Writers to a bucket: one at a time, killed and resumed, never replacing anything foreign."""

import json
import socket
import threading

import numpy as np
import pytest
import zarr
from bad_input import succeed
from made_bucket import complete, made_plan, made_rows, make_store
from made_store import fill
from rich.progress import Progress
from s3_server import TESTS, in_process

from store.errors import StoreError
from store.reader import FeatureStore
from store.storage.s3 import Bucket
from store.verify import verify
from store.writer import write_store


@pytest.mark.parametrize(("step", "overwrite"), [(20, False), (40, True)])
def test_a_writer_to_a_bucket_is_killed_and_resumed(bucket, step, overwrite):
    """At every `step`-th change; `make soak` kills at each of them."""
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
for option in ("resume", "overwrite"):
    try:
        make_store(locate(sys.argv[1]), sizes=WITHOUT_VAL, **{option: True})
    except StoreError as error:
        print(error)
"""
        told = in_process(code, str(bucket)).splitlines()
        assert ["is writing this store; wait for it" in line for line in told] == [True, True]
        writer.finish()
    assert list(verify(FeatureStore(bucket), Progress(disable=True))) == []


def begin(bucket: Bucket, holder: dict) -> None:
    """Leave a draft that another process started."""
    with write_store(bucket, made_plan(), resume=False, overwrite=False) as writer:
        fill(writer, made_rows())  # and left unfinished
    bucket.beside(".unfinished").write("lock.json", [json.dumps(holder).encode()])


def test_a_reader_is_told_how_to_go_on_with_a_store_that_was_begun(bucket):
    begin(bucket, {})
    with pytest.raises(StoreError, match=r"is not finished .*s.zarr.unfinished.; repeat the .extract"):
        FeatureStore(bucket)


def test_the_lock_of_a_dead_host_is_taken_over(bucket, monkeypatch):
    monkeypatch.setattr("store.drafts.s3_lock.LEASE", 0.05)
    begin(bucket, {"host": "elsewhere", "pid": 1, "token": "x"})
    make_store(bucket, resume=True)
    assert not bucket.beside(".unfinished").sizes()


def test_a_number_of_another_container_says_nothing(bucket, monkeypatch):
    """A process that this one cannot see may be alive: its lock is watched, not taken at once."""
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
    """The server renews, the answer is lost, and the repeated request fails its condition."""
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
        assert renewals.wait(timeout=60)
        complete(writer)
    assert list(verify(FeatureStore(bucket), Progress(disable=True))) == []


@pytest.mark.parametrize("content", [b"garbage", b"[]", b"{}"])
def test_a_damaged_beginning_in_a_bucket_can_be_replaced(bucket, content):
    begin(bucket, {"host": "elsewhere", "pid": 1})
    bucket.beside(".unfinished").delete(["lock.json"])
    bucket.beside(".unfinished").write("begun.json", [content])
    with pytest.raises(StoreError, match=r"begun\.json is damaged; pass --overwrite to start over"):
        make_store(bucket, resume=True)
    make_store(bucket, overwrite=True)
    assert list(verify(FeatureStore(bucket), Progress(disable=True))) == []


def test_who_lost_the_lock_completes_nothing(bucket):
    """Not even between two renewals: another host took over a store that had every row."""
    with pytest.raises(StoreError, match="another process has taken over this store"):
        finish_late(bucket)
    assert json.loads(bucket.read("zarr.json"))["attributes"]["complete"] is False
    side = bucket.beside(".unfinished")
    assert {"begun.json", "lock.json"} <= side.sizes().keys()


def finish_late(bucket: Bucket) -> None:
    with write_store(bucket, made_plan(), resume=False, overwrite=False) as writer:
        fill(writer, made_rows())
        bucket.beside(".unfinished").write("lock.json", [b'{"host": "elsewhere", "pid": 1, "token": "x"}'])
        writer.finish()


def test_who_lost_the_lock_writes_no_more_records(bucket, monkeypatch):
    monkeypatch.setattr("store.drafts.s3_lock.LEASE", 0.05)
    with write_store(bucket, made_plan(), resume=False, overwrite=False) as writer:
        (renewing,) = (thread for thread in threading.enumerate() if thread.name == "store lock")
        while renewing.is_alive():  # moto's conditional writes can overwrite what comes in their middle
            bucket.beside(".unfinished").write("lock.json", [b'{"host": "elsewhere", "pid": 1}'])
            renewing.join(0.1)
        with pytest.raises(StoreError, match="another process has taken over this store"):
            complete(writer)
    assert "zarr.json" in bucket.sizes()


def test_what_is_in_the_way_is_spared(bucket):
    bucket.write("thesis.txt", [b"three years of work"])
    with pytest.raises(
        Exception, match=r"already exists and is not a store that may be replaced \(it holds thesis\.txt\)"
    ):
        make_store(bucket, overwrite=True)
    zarr.create_group(bucket.zarr_store)
    bucket.delete(["thesis.txt"])
    with pytest.raises(Exception, match=r"is not a store that may be replaced \(it holds zarr\.json\)"):
        make_store(bucket, overwrite=True)
    assert set(bucket.sizes()) == {"zarr.json"}


def test_an_error_before_the_first_rows_leaves_nothing_in_the_bucket(bucket):
    with pytest.raises(ZeroDivisionError), write_store(bucket, made_plan(), False, False):
        raise ZeroDivisionError
    assert not bucket.sizes()
    assert not bucket.beside(".unfinished").sizes()


def test_extraction_goes_on_in_a_bucket(bucket, small_ckpt, small_store):
    """Killed through the command itself, at a record of its log."""
    code = """
import os, signal, sys
import extract.dump, store.layout
from bad_input import run, succeed
from dying import die_at_commit
from store.drafts.s3 import S3CommitLog
bucket, *command = sys.argv[1:]
store.layout.BLOCK_BYTES = 4096
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
    assert "54 rows extracted again agree" in succeed("store", "verify", bucket, *sampled).stdout
    assert "2 views of each training image" in succeed("store", "info", bucket).stdout
    ours, theirs = FeatureStore(bucket), FeatureStore(small_store)
    np.testing.assert_allclose(ours.read("test").pooled, theirs.read("test").pooled, atol=1e-5)
    for name in ("train/feature_map", "train/cam"):
        first = ours.arrays[name].read()[ours.read("train").view == 0]
        np.testing.assert_allclose(first, theirs.arrays[name].read(), atol=1e-5)
