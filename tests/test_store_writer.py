"""The write protocol: whatever happens on the way, a store is whole or absent, and resuming completes it."""

import itertools
import os
import shutil
import signal
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import made_store
import pytest
import zarr
from dying import die_at_commit
from faults import ended, forked, full_disk, readable
from made_store import CLASSES, WITHOUT_VAL, committed, contents, fill, made_plan, made_rows, make_store

from store.drafts.lifecycle import unfinished_folder
from store.errors import StoreError, UserError
from store.reader import FeatureStore
from store.writer import write_store

DURABLE = ("fsync", "replace", "truncate")  # calls between which the state on the disk differs


@pytest.fixture(params=[".zarr", ".h5", "packed.h5"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where to write a store that takes several blocks; compressed HDF5 is written in another way."""
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 2048)
    monkeypatch.setattr("made_store.CODEC", "zstd" if request.param == "packed.h5" else "none")
    # A process that is killed loses nothing of what it wrote, synced or not, and syncing takes longest.
    monkeypatch.setattr(os, "fsync", lambda file: None)
    return tmp_path / f"s{request.param}"


@pytest.fixture
def whole(path: Path) -> dict[str, bytes]:
    """The files of the store that an uninterrupted writer leaves."""
    return written(path, make_store)


def written(path: Path, make: Callable[[Path], None]) -> dict[str, bytes]:
    other = path.with_name(f"whole{path.suffix}")
    make(other)
    return contents(other)


def syncs_a_folder(where: int | Path, *_: object) -> bool:
    """Whether nothing that outlives a kill differs before and after a call."""
    return isinstance(where, int) and stat.S_ISDIR(os.fstat(where).st_mode)


def in_child(action: Callable[[], None], die_at: int | None = None) -> int:
    """Run in a forked process, killed before its `die_at`-th durable call; the signal, or 0.

    The child counts calls of both its threads, so that every step of the protocol is met in turn.
    """

    def dying() -> None:
        n_calls = itertools.count(1)

        def counting(call: Callable) -> Callable:
            def counted(*args, **kwargs):
                if not syncs_a_folder(*args) and next(n_calls) == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return counted

        for name in DURABLE:
            setattr(os, name, counting(getattr(os, name)))
        action()

    code = ended(*forked(dying))
    assert code <= 0
    return -code


def begun(path: Path, n_commits: int = 4) -> None:
    """Leave a store whose writer was killed after so many commits."""

    def make() -> None:
        die_at_commit(n_commits)
        make_store(path)

    assert in_child(make) == signal.SIGKILL


def test_killed_before_every_durable_call_and_resumed(path):
    make = partial(make_store, sizes=WITHOUT_VAL)  # its steps are those of the other splits
    whole = written(path, make)
    n_kills = 0
    while in_child(lambda: make(path), die_at=n_kills + 1):
        n_kills += 1
        finished = path.exists()
        assert readable(path) == finished  # whole, or not there under its name
        for unfinished in unfinished_folder(path).glob(f"*{path.suffix}"):
            if readable(unfinished):  # says complete: then it is
                assert contents(unfinished) == whole
        make(path, resume=True)
        assert contents(path) == whole
        assert not unfinished_folder(path).exists()
        path.unlink() if path.is_file() else shutil.rmtree(path)
    assert n_kills >= 40


def test_killed_again_while_resuming(path, whole):
    """Each attempt gets a little further in its own calls; what it resumes was killed many times before."""
    n_attempts = 0
    while in_child(lambda: make_store(path, resume=True), die_at=5 + 6 * n_attempts):
        n_attempts += 1
        assert readable(path) == path.exists()
    assert n_attempts >= 4
    assert contents(path) == whole


def test_killed_while_replacing_leaves_the_old_or_the_new(path):
    make = partial(make_store, sizes=WITHOUT_VAL)
    whole = written(path, make)
    make(path)
    before = contents(path)
    n_kills = 0
    while in_child(lambda: make(path, overwrite=True), die_at=3 * n_kills + 1):
        n_kills += 1
        if path.exists():
            assert contents(path) in (before, whole)
        make(path, resume=True, overwrite=True)
        assert contents(path) == whole
        assert not unfinished_folder(path).exists()
    assert n_kills >= 15


def test_resuming_writes_the_missing_blocks_only(path, whole):
    begun(path)
    done = {(record["group"], record["block"]) for record in committed(unfinished_folder(path))}
    assert len(done) == 4
    with write_store(path, made_plan(), resume=True, overwrite=False) as writer:
        assert writer.n_resumed == len(done)
        n_missing = sum(len(writer.missing(split)) for split in ("train", "val", "test"))
        n_blocks = {s: made_plan().layouts[f"{s}/pooled"].n_blocks for s in ("train", "val", "test")}
        assert n_missing == sum(n_blocks.values()) - sum(group != "known" for group, _ in done)
        fill(writer, made_rows())
        writer.finish()
    assert contents(path) == whole


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_record_is_written_again(path, whole, damage):
    begun(path)
    log = unfinished_folder(path) / "commits.jsonl"
    content = bytearray(log.read_bytes())
    n_records = content.count(b"\n")
    if damage == "cut":
        del content[-3:]
    else:
        content[-20] ^= 1
    log.write_bytes(content)
    with write_store(path, made_plan(), resume=True, overwrite=False) as writer:
        assert writer.n_resumed == n_records - 1
        fill(writer, made_rows())
        writer.finish()
    assert contents(path) == whole


def test_a_block_that_a_power_cut_took_is_written_again(path, whole):
    """The file's name may be lost where its record is not; HDF5's rows are synced in their place."""
    begun(path)
    folder = unfinished_folder(path)
    record = next(record for record in committed(folder) if record["group"] != "known")
    of_block = {
        ".zarr": f"s.zarr/{record['group']}/pooled/c/{record['block']}/0",
        ".h5": f"{path.name}.parts/{record['group']}.pooled/{record['block']}",
    }
    if path.name == "s.h5":
        assert (folder / "s.h5").exists()
        return
    n_committed = len(committed(folder))
    (folder / of_block[path.suffix]).unlink()
    with write_store(path, made_plan(), resume=True, overwrite=False) as writer:
        assert writer.n_resumed == n_committed - 1
        fill(writer, made_rows())
        writer.finish()
    assert contents(path) == whole


def test_resume_of_another_store_is_refused_with_both_values(path):
    begun(path)
    before = contents(unfinished_folder(path))
    with pytest.raises(StoreError, match=r"another precision \(fp32\) than asked for now \(bf16\)"):
        make_store(path, resume=True, precision="bf16")
    assert contents(unfinished_folder(path)) == before


def test_resume_in_another_layout_is_refused(path, monkeypatch):
    begun(path)
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 4096)
    with pytest.raises(
        StoreError, match=r"another layout of train/pooled .*'block_rows': 16.*'block_rows': 32"
    ):
        make_store(path, resume=True)


def test_what_was_begun_is_neither_resumed_nor_replaced_unasked(path, whole):
    begun(path)
    with pytest.raises(StoreError, match="was begun; pass --resume to go on, or --overwrite to begin anew"):
        make_store(path)
    make_store(path, overwrite=True)
    assert contents(path) == whole


def test_resuming_a_finished_store_leaves_it_as_it_is(path):
    make_store(path)
    before = contents(path)
    make_store(path, resume=True)
    assert contents(path) == before
    with pytest.raises(StoreError, match=r"another precision \(fp32\) than asked for now \(bf16\)"):
        make_store(path, resume=True, precision="bf16")
    with pytest.raises(UserError, match="already exists; pass --overwrite"):
        make_store(path)


@pytest.mark.parametrize("content", ["garbage{", "[]", "{}", '{"replaces": 1}'])
def test_a_damaged_beginning_can_be_replaced(path, whole, content):
    begun(path)
    (unfinished_folder(path) / "begun.json").write_text(content)
    with pytest.raises(StoreError, match=r"begun\.json is damaged; pass --overwrite to begin anew"):
        make_store(path, resume=True)
    make_store(path, overwrite=True)
    assert contents(path) == whole


def test_what_came_to_lie_there_meanwhile_is_spared(path, whole):
    with pytest.raises(UserError, match=r"already exists and is no store alone"):
        finish_where(path, "three years of work")
    assert path.read_text() == "three years of work"
    path.unlink()
    make_store(path, resume=True)
    assert contents(path) == whole


def finish_where(path: Path, text: str) -> None:
    """Write a store, while somebody else writes to its name."""
    with write_store(path, made_plan(), resume=False, overwrite=False) as writer:
        fill(writer, made_rows())
        path.write_text(text)
        writer.finish()


def test_an_emptied_block_is_written_again(path, whole):
    begun(path)
    for shard in unfinished_folder(path).rglob("*/*"):
        if shard.is_file() and "pooled" in str(shard) and shard.name.isdigit():
            os.truncate(shard, 0)
    make_store(path, resume=True)
    assert contents(path) == whole


def test_everything_is_on_the_disk_before_complete(path, monkeypatch):
    """The order of syncs: a file before its name, a block before its record, all of it before `complete`."""
    done = []

    def synced(descriptor: int) -> None:
        done.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))

    def replaced(old: Path, new: Path, replace=os.replace) -> None:
        done.append(("replace", str(old)))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    make_store(path)
    for i, (what, name) in enumerate(done):
        is_file = what == "replace" and ".unfinished-" in Path(name).name
        assert not is_file or ("sync", name) in done[:i], name
    records = [i for i, step in enumerate(done) if step[1].endswith("commits.jsonl")]
    blocks = [i for i, (what, name) in enumerate(done) if what == "sync" and "pooled" in name]
    if path.name != "s.h5":  # whose blocks are all one file
        for n, i in enumerate(records):  # but for the first, of what is known beforehand
            assert sum(block < i for block in blocks) >= n - 1
    publishing = max(i for i, step in enumerate(done) if step[0] == "replace")
    if path.suffix == ".zarr":
        root = max(i for i, (what, name) in enumerate(done[:publishing]) if "zarr.json.unf" in name)
        synced_before = {name for what, name in done[:root] if what == "sync"}
        tree = unfinished_folder(path) / path.name
        for file in path.rglob("*"):
            there = str(tree / file.relative_to(path))
            assert (file.is_file() and file.name != "zarr.json") or there in synced_before, file


def test_what_lies_within_a_store_and_is_not_of_it_is_spared(path):
    make_store(path)
    if path.is_dir():
        (path / "train" / "notes.txt").write_text("three years of work")
        with pytest.raises(UserError, match=r"holds train/notes\.txt"):
            make_store(path, overwrite=True)


def test_names_that_cannot_become_a_store_are_refused_at_once(path):
    path.symlink_to(path)
    with pytest.raises(StoreError, match="a link that leads to itself"):
        make_store(path)
    assert list(path.parent.iterdir()) == [path]


def test_a_mount_point_cannot_become_a_store(path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda place: Path(place) == path)
    with pytest.raises(StoreError, match="is where a disk is mounted"):
        make_store(path)


def test_two_writers_are_refused(path, whole):
    with write_store(path, made_plan(), resume=False, overwrite=False) as writer:
        for options in ({"resume": True}, {"overwrite": True}, {}):
            with pytest.raises(StoreError, match="another process is writing this store"):
                make_store(path, **options)
        fill(writer, made_rows())
        writer.finish()
    assert contents(path) == whole


def write_partly(path, known=True):
    """All but the network's part of the train split, or the FC layer alone; then an attempt to finish."""
    streamed = ("train/pooled", "train/feature_map", "train/cam")
    rows = made_rows()
    with write_store(path, made_plan(), resume=False, overwrite=False) as writer:
        if known:
            fill(writer, {name: rows[name] for name in rows if name not in streamed})
        else:
            writer.write_known({name: rows[name] for name in ("classifier/weight", "classifier/bias")})
        writer.finish()


def test_missing_rows_cannot_be_finished(path):
    with pytest.raises(StoreError, match=r"3 of 3 blocks of train/pooled are missing"):
        write_partly(path)
    assert not path.exists()


def test_an_error_before_the_first_rows_leaves_nothing(path):
    with pytest.raises(StoreError, match="are missing"):
        write_partly(path, known=False)
    assert list(path.parent.iterdir()) == []


def test_a_full_disk_is_told_and_resumable(path, whole):
    told = r"disk is full after \d+ blocks; make room, .* --resume"
    with full_disk(3), pytest.raises(StoreError, match=told):
        make_store(path)
    assert not path.exists()
    make_store(path, resume=True)
    assert contents(path) == whole


def test_other_peoples_folder_under_the_unfinished_name_is_spared(path):
    folder = unfinished_folder(path)
    folder.mkdir()
    (folder / "thesis.txt").write_text("three years of work")
    with pytest.raises(StoreError, match=r"holds thesis\.txt"):
        make_store(path, overwrite=True)
    assert (folder / "thesis.txt").exists()


def test_unfinished_tree_says_that_it_is_not_complete(path):
    begun(path)
    tree = unfinished_folder(path) / path.name
    if made_store.CODEC != "none":
        assert not tree.exists()  # put together at the end
        return
    root = zarr.open_group(tree, mode="r") if path.suffix == ".zarr" else h5py.File(tree, "r")
    assert not root.attrs["complete"]
    with pytest.raises(StoreError, match="was never finished"):
        FeatureStore(tree)
    assert len(CLASSES) == len(made_plan().class_names)
