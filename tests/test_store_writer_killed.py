"""Writers killed at every step: the store at the path is whole, or the older one, or absent."""

import os
import shutil
from functools import partial
from pathlib import Path

import h5py
import made_store
import pytest
import zarr
from dying import begun, in_child
from faults import readable
from made_store import (
    CLASSES,
    WITHOUT_VAL,
    committed,
    contents,
    fill,
    made_plan,
    made_rows,
    make_store,
    written,
)

from store.drafts.lifecycle import draft_folder
from store.errors import StoreError
from store.reader import FeatureStore
from store.writer import write_store

pytestmark = pytest.mark.forks


def test_killed_before_every_durable_call_and_resumed(store_path):
    make = partial(make_store, sizes=WITHOUT_VAL)  # its steps are those of the other splits
    whole_store = written(store_path, make)
    n_kills = 0
    while in_child(lambda: make(store_path), die_at=n_kills + 1):
        n_kills += 1
        finished = store_path.exists()
        assert readable(store_path) == finished  # whole, or absent from its path
        for unfinished in draft_folder(store_path).glob(f"*{store_path.suffix}"):
            if readable(unfinished):  # if it says complete, it is
                assert contents(unfinished) == whole_store
        make(store_path, resume=True)
        assert contents(store_path) == whole_store
        assert not draft_folder(store_path).exists()
        store_path.unlink() if store_path.is_file() else shutil.rmtree(store_path)
    assert n_kills >= 40


def test_killed_again_while_resuming(store_path, whole_store):
    """Each attempt gets a little further, resuming a draft that was killed many times before."""
    n_attempts = 0
    while in_child(lambda: make_store(store_path, resume=True), die_at=5 + 4 * n_attempts):
        n_attempts += 1
        assert readable(store_path) == store_path.exists()
    assert n_attempts >= 4
    assert contents(store_path) == whole_store


def test_killed_while_replacing_leaves_the_old_or_the_new(store_path):
    make = partial(make_store, sizes=WITHOUT_VAL)
    whole_store = written(store_path, make)
    make(store_path)
    before = contents(store_path)
    n_kills = 0
    while in_child(lambda: make(store_path, overwrite=True), die_at=3 * n_kills + 1):
        n_kills += 1
        if store_path.exists():
            assert contents(store_path) in (before, whole_store)
        make(store_path, resume=True, overwrite=True)
        assert contents(store_path) == whole_store
        assert not draft_folder(store_path).exists()
    assert n_kills >= 15


def test_resuming_writes_the_missing_blocks_only(store_path, whole_store):
    begun(store_path)
    done = {(record["group"], record["block"]) for record in committed(draft_folder(store_path))}
    assert len(done) == 4
    with write_store(store_path, made_plan(), resume=True, overwrite=False) as writer:
        assert writer.n_resumed == len(done)
        n_missing = sum(len(writer.missing(split)) for split in ("train", "val", "test"))
        n_blocks = {s: made_plan().layouts[f"{s}/pooled"].n_blocks for s in ("train", "val", "test")}
        assert n_missing == sum(n_blocks.values()) - sum(group != "known" for group, _ in done)
        fill(writer, made_rows())
        writer.finish()
    assert contents(store_path) == whole_store


def blocks_kept(path: Path) -> int:
    """Resume an interrupted writer to the end; return the number of blocks that it found."""
    with write_store(path, made_plan(), resume=True, overwrite=False) as writer:
        n_resumed = writer.n_resumed
        fill(writer, made_rows())
        writer.finish()
    return n_resumed


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_record_is_written_again(store_path, whole_store, damage):
    begun(store_path)
    log = draft_folder(store_path) / "commits.jsonl"
    content = bytearray(log.read_bytes())
    n_records = content.count(b"\n")
    if damage == "cut":
        del content[-3:]
    else:
        content[-20] ^= 1
    log.write_bytes(content)
    assert blocks_kept(store_path) == n_records - 1
    assert contents(store_path) == whole_store


def test_a_block_that_a_power_cut_took_is_written_again(store_path, whole_store):
    """The file may be lost although its record is not; HDF5's rows are synced in place."""
    begun(store_path)
    folder = draft_folder(store_path)
    record = next(record for record in committed(folder) if record["group"] != "known")
    of_block = {
        ".zarr": f"s.zarr/{record['group']}/pooled/c/{record['block']}/0",
        ".h5": f"{store_path.name}.parts/{record['group']}.pooled/{record['block']}",
    }
    if store_path.name == "s.h5":
        assert (folder / "s.h5").exists()
        return
    n_committed = len(committed(folder))
    (folder / of_block[store_path.suffix]).unlink()
    assert blocks_kept(store_path) == n_committed - 1
    assert contents(store_path) == whole_store


def test_an_emptied_block_is_written_again(store_path, whole_store):
    begun(store_path)
    for shard in draft_folder(store_path).rglob("*/*"):
        if shard.is_file() and "pooled" in str(shard) and shard.name.isdigit():
            os.truncate(shard, 0)
    make_store(store_path, resume=True)
    assert contents(store_path) == whole_store


def test_unfinished_tree_says_that_it_is_not_complete(store_path):
    begun(store_path)
    tree = draft_folder(store_path) / store_path.name
    if made_store.CODEC != "none":
        assert not tree.exists()  # assembled at the end
        return
    root = zarr.open_group(tree, mode="r") if store_path.suffix == ".zarr" else h5py.File(tree, "r")
    assert not root.attrs["complete"]
    with pytest.raises(StoreError, match="was never finished"):
        FeatureStore(tree)
    assert len(CLASSES) == len(made_plan().class_names)
