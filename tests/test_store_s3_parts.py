"""Parts of a store in a bucket: the objects of one writer's store, whoever completes it."""

import json

import pytest
from made_bucket import made_plan, made_rows, make_store, objects
from made_store import fill
from s3_server import in_process

from store.errors import StoreError
from store.parts.join import MissingPartsError, join, join_if_last
from store.parts.part import Part
from store.parts.writer import write_part
from store.reader import FeatureStore
from store.storage.location import locate
from store.storage.s3 import Bucket


def write(bucket: Bucket, number: int, count: int = 3, resume: bool = False, **identity: object) -> None:
    with write_part(bucket, made_plan(**identity), Part(number, count), resume) as writer:
        fill(writer, made_rows())
        writer.finish()


@pytest.fixture
def whole(bucket: Bucket) -> dict[str, bytes]:
    other = locate(bucket.url.replace("s.zarr", "whole.zarr"))
    make_store(other)
    return objects(other)


def test_parts_in_a_bucket_give_the_objects_of_one_writer(bucket, whole):
    for number in (3, 1):
        write(bucket, number)
        assert not join_if_last(bucket)
    with pytest.raises(StoreError, match="once its 3 parts are written, run `store join s3://"):
        FeatureStore(bucket)
    with pytest.raises(MissingPartsError, match="of part 2/3; run"):
        join(bucket)
    with pytest.raises(StoreError, match="another precision"):
        write(bucket, 2, precision="bf16")
    with pytest.raises(StoreError, match="was started in 3 parts"):
        make_store(bucket, resume=True)
    with pytest.raises(StoreError, match="part 1/3 was begun already"):
        write(bucket, 1)
    write(bucket, 2)
    assert join_if_last(bucket)
    assert objects(bucket) == whole
    assert not bucket.beside(".unfinished").sizes()
    assert join(bucket) == 0


CHILD = """
import os, sys
import store.layout
from dying import die_at_commit
from store.drafts.s3 import S3CommitLog
from store.storage.location import locate
from test_store_s3_parts import join, write
store.layout.BLOCK_BYTES = 2048
die_at_commit(2, S3CommitLog)
child = os.fork()
if child == 0:
    write(locate(sys.argv[1]), 1, 2)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_killed_part_in_a_bucket_is_resumed(bucket, whole):
    assert in_process(CHILD, str(bucket)).strip() == "-9"
    side = bucket.beside(".unfinished")
    assert "lock.part.1-of-2.json" in side.sizes()  # the dead one's, which is gone from this host
    assert json.loads(side.read("begun.json"))["parts"] == 2
    write(bucket, 2, 2)
    with pytest.raises(MissingPartsError, match="of part 1/2; run"):
        join(bucket)
    write(bucket, 1, 2, resume=True)
    assert join(bucket) == 2
    assert objects(bucket) == whole
    assert not side.sizes()


def test_a_part_that_lives_is_not_disturbed(bucket, monkeypatch):
    monkeypatch.setattr("store.drafts.s3_lock.LEASE", 0.3)  # of the writer; the others watch for 2 seconds
    with write_part(bucket, made_plan(), Part(1, 2), False) as writer:
        code = """
import sys
import store.drafts.s3_lock, store.layout
from store.errors import InUseError
from store.storage.location import locate
from test_store_s3_parts import join, join_if_last, make_store, write
store.layout.BLOCK_BYTES, store.drafts.s3_lock.LEASE = 2048, 2.0
where = locate(sys.argv[1])
assert not join_if_last(where)
for attempt in (join, lambda where: write(where, 1, 2), lambda where: make_store(where, overwrite=True)):
    try:
        attempt(where)
    except InUseError as error:
        print(error)
write(where, 2, 2)
"""
        said = in_process(code, str(bucket)).splitlines()
        assert len(said) == 3
        assert all("is writing part 1/2 of this store; wait for it" in line for line in said)
        fill(writer, made_rows())
        writer.finish()
    assert join(bucket) == 2
