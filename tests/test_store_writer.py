"""The write protocol: the order of syncs, who may write, and what is never replaced."""

import os
from pathlib import Path

import pytest
from dying import begun
from faults import full_disk
from made_store import contents, fill, made_plan, made_rows, make_store

from store.drafts.lifecycle import draft_folder
from store.errors import StoreError, UserError
from store.writer import write_store

pytestmark = pytest.mark.forks


def test_resume_of_another_store_is_refused_with_both_values(store_path):
    begun(store_path)
    before = contents(draft_folder(store_path))
    with pytest.raises(StoreError, match=r"another precision \(fp32\) than now \(bf16\)"):
        make_store(store_path, resume=True, precision="bf16")
    assert contents(draft_folder(store_path)) == before


def test_resume_in_another_layout_is_refused(store_path, monkeypatch):
    begun(store_path)
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 4096)
    with pytest.raises(
        StoreError, match=r"another layout of train/pooled .*'block_rows': 16.*'block_rows': 32"
    ):
        make_store(store_path, resume=True)


def test_what_was_begun_is_neither_resumed_nor_replaced_unasked(store_path, whole_store):
    begun(store_path)
    with pytest.raises(
        StoreError, match="is an unfinished store; pass --resume to continue it, or --overwrite to start over"
    ):
        make_store(store_path)
    make_store(store_path, overwrite=True)
    assert contents(store_path) == whole_store


def test_resuming_a_finished_store_leaves_it_as_it_is(store_path):
    make_store(store_path)
    before = contents(store_path)
    make_store(store_path, resume=True)
    assert contents(store_path) == before
    with pytest.raises(StoreError, match=r"another precision \(fp32\) than now \(bf16\)"):
        make_store(store_path, resume=True, precision="bf16")
    with pytest.raises(UserError, match="already exists; pass --overwrite"):
        make_store(store_path)


@pytest.mark.parametrize("content", ["garbage{", "[]", "{}", '{"replaces": 1}'])
def test_a_damaged_beginning_can_be_replaced(store_path, whole_store, content):
    begun(store_path)
    (draft_folder(store_path) / "begun.json").write_text(content)
    with pytest.raises(StoreError, match=r"begun\.json is damaged; pass --overwrite to start over"):
        make_store(store_path, resume=True)
    make_store(store_path, overwrite=True)
    assert contents(store_path) == whole_store


def test_what_came_to_lie_there_meanwhile_is_spared(store_path, whole_store):
    with pytest.raises(UserError, match=r"already exists and is not a store that may be replaced"):
        finish_where(store_path, "three years of work")
    assert store_path.read_text() == "three years of work"
    store_path.unlink()
    make_store(store_path, resume=True)
    assert contents(store_path) == whole_store


def finish_where(store_path: Path, text: str) -> None:
    """Write a store while another process writes to its path."""
    with write_store(store_path, made_plan(), resume=False, overwrite=False) as writer:
        fill(writer, made_rows())
        store_path.write_text(text)
        writer.finish()


def test_everything_is_on_the_disk_before_complete(store_path, monkeypatch):
    """The order of syncs: a file before its name, a block before its record, all of it before `complete`."""
    done = []

    def synced(descriptor: int) -> None:
        done.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))

    def replaced(old: Path, new: Path, replace=os.replace) -> None:
        done.append(("replace", str(old)))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    make_store(store_path)
    for i, (what, name) in enumerate(done):
        is_file = what == "replace" and ".unfinished-" in Path(name).name
        assert not is_file or ("sync", name) in done[:i], name
    records = [i for i, step in enumerate(done) if step[1].endswith("commits.jsonl")]
    blocks = [i for i, (what, name) in enumerate(done) if what == "sync" and "pooled" in name]
    if store_path.name != "s.h5":  # whose blocks are all one file
        for n, i in enumerate(records):  # except the first, of the arrays known beforehand
            assert sum(block < i for block in blocks) >= n - 1
    publishing = max(i for i, step in enumerate(done) if step[0] == "replace")
    if store_path.suffix == ".zarr":
        root = max(i for i, (what, name) in enumerate(done[:publishing]) if "zarr.json.unf" in name)
        synced_before = {name for what, name in done[:root] if what == "sync"}
        tree = draft_folder(store_path) / store_path.name
        for file in store_path.rglob("*"):
            there = str(tree / file.relative_to(store_path))
            assert (file.is_file() and file.name != "zarr.json") or there in synced_before, file


def test_what_lies_within_a_store_and_is_not_of_it_is_spared(store_path):
    make_store(store_path)
    if store_path.is_dir():
        (store_path / "train" / "notes.txt").write_text("three years of work")
        with pytest.raises(UserError, match=r"holds train/notes\.txt"):
            make_store(store_path, overwrite=True)


def test_names_that_cannot_become_a_store_are_refused_at_once(store_path):
    store_path.symlink_to(store_path)
    with pytest.raises(StoreError, match="a link that leads to itself"):
        make_store(store_path)
    assert list(store_path.parent.iterdir()) == [store_path]


def test_a_mount_point_cannot_become_a_store(store_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda place: Path(place) == store_path)
    with pytest.raises(StoreError, match="is a mount point"):
        make_store(store_path)


def test_two_writers_are_refused(store_path, whole_store):
    with write_store(store_path, made_plan(), resume=False, overwrite=False) as writer:
        for options in ({"resume": True}, {"overwrite": True}, {}):
            with pytest.raises(StoreError, match="another process is writing this store"):
                make_store(store_path, **options)
        fill(writer, made_rows())
        writer.finish()
    assert contents(store_path) == whole_store


def write_partly(store_path, known=True):
    """Write all but the network's arrays of the train split, or only the FC layer; then try to finish."""
    streamed = ("train/pooled", "train/feature_map", "train/cam")
    rows = made_rows()
    with write_store(store_path, made_plan(), resume=False, overwrite=False) as writer:
        if known:
            fill(writer, {name: rows[name] for name in rows if name not in streamed})
        else:
            writer.write_known({name: rows[name] for name in ("classifier/weight", "classifier/bias")})
        writer.finish()


def test_missing_rows_cannot_be_finished(store_path):
    with pytest.raises(StoreError, match=r"3 of 3 blocks of train/pooled are missing"):
        write_partly(store_path)
    assert not store_path.exists()


def test_an_error_before_the_first_rows_leaves_nothing(store_path):
    with pytest.raises(StoreError, match="are missing"):
        write_partly(store_path, known=False)
    assert list(store_path.parent.iterdir()) == []


def test_a_full_disk_is_told_and_resumable(store_path, whole_store):
    told = r"disk is full after \d+ blocks; make room, .* --resume"
    with full_disk(3), pytest.raises(StoreError, match=told):
        make_store(store_path)
    assert not store_path.exists()
    make_store(store_path, resume=True)
    assert contents(store_path) == whole_store


def test_other_peoples_folder_under_the_unfinished_name_is_spared(store_path):
    folder = draft_folder(store_path)
    folder.mkdir()
    (folder / "thesis.txt").write_text("three years of work")
    with pytest.raises(StoreError, match=r"holds thesis\.txt"):
        make_store(store_path, overwrite=True)
    assert (folder / "thesis.txt").exists()
