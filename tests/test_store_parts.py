"""Stores that several writers fill, each its share of the blocks: whatever happens, as one writer's bytes."""

import errno
import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from dying import die_at_commit, in_child
from faults import forked, readable
from made_store import contents, fill, made_layouts, made_plan, made_rows, make_store
from test_store_locks import Gate, ended

from store.drafts.lifecycle import draft_folder, draft_of
from store.errors import InUseError, StoreError
from store.parts.join import MissingPartsError, join, join_if_last
from store.parts.part import Part, parse_part
from store.parts.share import owners
from store.parts.writer import write_part

pytestmark = pytest.mark.usefixtures("several_blocks")
STORE = Path("s.zarr")


def write(number: int, count: int = 3, resume: bool = False, **identity: object) -> None:
    """Write a part of a made store."""
    with write_part(STORE, made_plan(**identity), Part(number, count), resume) as writer:
        fill(writer, made_rows())
        writer.finish()


@pytest.fixture
def whole(several_blocks: None) -> dict[str, bytes]:
    """What one process writes."""
    make_store(Path("whole.zarr"))
    return contents(Path("whole.zarr"))


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_parts_give_the_store_of_one_writer(whole, count):
    for number in reversed(range(1, count + 1)):
        assert not STORE.exists()
        write(number, count)
    assert not readable(STORE)
    assert join(STORE) == count
    assert contents(STORE) == whole
    assert not draft_folder(STORE).exists()
    assert join(STORE) == 0  # nothing left to do


def test_parts_share_the_blocks_evenly_and_leave_none_out():
    layouts = made_layouts()
    n_blocks = sum(layouts[f"{split}/pooled"].n_blocks for split in ("train", "val", "test"))
    for count in (1, 2, 3, 5):
        dealt = owners(layouts, count)
        assert len(dealt) == n_blocks + 1  # and what is known beforehand
        rows = dict.fromkeys(range(1, count + 1), 0)
        for (split, block), number in dealt.items():
            if split != "known":
                start, stop = layouts[f"{split}/pooled"].block(block)
                rows[number] += stop - start
        assert sum(rows.values()) == 44 + 9 + 20
        largest = max(layouts[f"{split}/pooled"].block_rows for split in ("train", "val", "test"))
        assert max(rows.values()) - min(rows.values()) <= largest


def test_parts_at_the_same_time(whole):
    """Each waits within its first write until all have begun."""
    gate = Gate()

    def part(number: int) -> None:
        with write_part(STORE, made_plan(), Part(number, 3), False) as writer:
            gate.wait()
            fill(writer, made_rows())
            writer.finish()

    children = [forked(lambda number=number: part(number)) for number in (1, 2, 3)]
    gate.reached(3)
    for attempt in (join, lambda where: make_store(where, overwrite=True)):
        with pytest.raises(InUseError, match=r"is writing part ./3 of this store; wait for it"):
            attempt(STORE)
    assert not join_if_last(STORE)
    with pytest.raises(InUseError, match=r"is writing part 2/3 of this store"):
        write(2)
    gate.open(3)
    assert [ended(*child) for child in children] == [0, 0, 0]
    join(STORE)
    assert contents(STORE) == whole


def test_a_part_begins_while_others_make_their_files(whole, monkeypatch):
    """Whatever it lists of the draft, another part's lock and record are there the moment before."""
    write(1)
    record, lock = draft_folder(STORE) / "commits.2-of-3.jsonl", draft_folder(STORE) / "lock.2-of-3"
    list_names = Path.iterdir

    def listed(folder: Path) -> Iterator[Path]:
        if folder.name == draft_folder(STORE).name:
            record.touch()
            lock.touch()
        return list_names(folder)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", listed)
        write(3)
    assert record.exists()
    write(2)
    assert join(STORE) == 3
    assert contents(STORE) == whole


def test_the_last_of_several_completes_the_store(whole):
    assert [write(n) or join_if_last(STORE) for n in (2, 3, 1)] == [False, False, True]
    assert contents(STORE) == whole
    assert not join_if_last(STORE)
    assert list(Path().glob("*.unfinished")) == []


def test_of_those_that_end_at_once_one_completes_it(whole):
    """They have written everything, and meet where one looks whether others still write."""
    for number in (1, 2, 3):
        write(number)
    start, told = Gate(), Gate()

    def end() -> None:
        start.wait()
        answer = b"f"  # told as well: nobody waits for one that failed
        try:
            answer = b"y" if join_if_last(STORE) else b"n"
        finally:
            told.wait(answer)

    children = [forked(end) for _ in range(3)]
    start.reached(3)
    start.open(3)
    assert sorted(told.reached(3)) == sorted(b"nny")
    told.open(3)
    assert [ended(*child) for child in children] == [0, 0, 0]
    assert contents(STORE) == whole
    assert list(Path().glob("*.unfinished")) == []


@pytest.mark.parametrize("moment", ["exists", "is_dir", "iterdir", "mkdir"])
def test_one_that_ends_while_another_removes_the_draft_is_not_confused(whole, monkeypatch, moment):
    """The folder goes at the moment that one looks at it; its path is then neither a file nor foreign."""
    for number in (1, 2, 3):
        write(number)
    assert join_if_last(STORE)
    folder, asked = draft_folder(STORE), []
    original = getattr(Path, moment)

    def gone(path: Path, *given: object, **more: object) -> object:
        if path != folder or asked:
            return original(path, *given, **more)
        asked.append(path)
        folder.rmdir()
        if moment == "mkdir":  # it was there, and by the next look is not
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        return original(path, *given, **more) or moment == "exists"

    folder.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(Path, moment, gone)
        with draft_of(STORE).waiting():
            assert asked == [folder]
    assert not folder.exists()
    assert contents(STORE) == whole


@pytest.mark.parametrize(("count", "killed", "n_commits"), [(3, 2, 1), (2, 1, 2)])
def test_a_killed_part_is_resumed(whole, count, killed, n_commits):
    def dies() -> None:
        die_at_commit(n_commits)
        write(killed, count)

    assert in_child(dies) == signal.SIGKILL
    for number in {1, 2, 3} - {killed, count + 1}:
        write(number, count)
    with pytest.raises(MissingPartsError, match=rf"blocks are missing, of part {killed}/{count}; run"):
        join(STORE)
    with pytest.raises(StoreError, match=f"part {killed}/{count} was begun already; pass --resume"):
        write(killed, count)
    log = draft_folder(STORE) / f"commits.{killed}-of-{count}.jsonl"
    before = log.read_text().splitlines()
    write(killed, count, resume=True)
    after = log.read_text().splitlines()
    assert after[:n_commits] == before  # and then only what was missing
    assert len({line.partition("checksums")[0] for line in after}) == len(after) > n_commits
    join(STORE)
    assert contents(STORE) == whole


def test_all_missing_parts_are_named():
    write(2)
    with pytest.raises(MissingPartsError, match=r"of parts 1/3, 3/3; run .extract. with --part and --resume"):
        join(STORE)


def test_killed_at_any_change_it_can_be_completed(whole):
    """Beginning, writing, completing: whoever dies there leaves a store that is finished or can be."""

    def all_parts() -> None:
        for number in (1, 2):
            write(number, 2, resume=True)
        join(STORE)

    for die_at in itertools.count(1, 19):
        killed = in_child(lambda: all_parts(), die_at)
        assert not STORE.exists() or contents(STORE) == whole
        if not STORE.exists():
            all_parts()
        join(STORE)
        assert contents(STORE) == whole
        assert list(Path().glob("*.unfinished")) == []
        STORE.rename(f"done{die_at}.zarr")
        if not killed:
            break
    assert die_at > 50


def test_other_options_are_named():
    write(1)
    for refused, says in {
        lambda: write(2, precision="bf16"): r"another precision \(fp32\) than now \(bf16\)",
        lambda: write(2, 4): r"was started in 3 parts, and not in 4 parts as now \(--part 2/4\)",
        lambda: make_store(STORE): "was started in 3 parts",
        lambda: make_store(STORE, resume=True): "was started in 3 parts",
    }.items():
        with pytest.raises(StoreError, match=says):
            refused()
    make_store(STORE, overwrite=True)  # by one process
    with pytest.raises(StoreError, match=r"s\.zarr: already exists; delete s\.zarr"):
        write(1)


def test_a_store_begun_as_a_whole_is_not_continued_in_parts():
    def dies() -> None:
        die_at_commit(3)
        make_store(STORE)

    assert in_child(dies) == signal.SIGKILL
    with pytest.raises(StoreError, match="was started as a whole, and not in 3 parts"):
        write(1, resume=True)
    with pytest.raises(StoreError, match="was not started in parts"):
        join(STORE)


def test_a_part_that_fails_before_its_first_row_leaves_nothing():
    with pytest.raises(ZeroDivisionError), write_part(STORE, made_plan(), Part(1, 2), False):
        raise ZeroDivisionError
    assert list(Path().iterdir()) == []
    write(1, 2)
    with pytest.raises(ZeroDivisionError), write_part(STORE, made_plan(), Part(2, 2), False):
        raise ZeroDivisionError
    write(2, 2)
    assert join(STORE) == 2


def test_there_is_nothing_to_join():
    with pytest.raises(StoreError, match="no such store"):
        join(Path("missing/s.zarr"))
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    "text", ["3/2", "0/2", "a/b", "1", "1/2/3", "-1/2", "1/0", "", " 1/2", "1/9999999", "½/2"]
)
def test_no_such_part(text):
    with pytest.raises(StoreError.__base__, match="--part"):
        parse_part(text, {})


def slurm(**of_array: object) -> dict[str, str]:
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in of_array.items()}


def test_the_tasks_of_slurm_are_parts_from_one_on():
    assert parse_part("slurm", slurm(ID=0, MIN=0, MAX=9, COUNT=10, STEP=1)) == Part(1, 10)
    assert parse_part("slurm", slurm(ID=9, MIN=1, MAX=9, COUNT=3, STEP=4)) == Part(3, 3)
    assert parse_part("slurm", slurm(ID=5, MIN=4, COUNT=3)) == Part(2, 3)
    assert parse_part("slurm", slurm(ID=5, MIN=4, MAX=6)) == Part(2, 3)
    for environment in (
        {},
        slurm(ID=1, MIN=1),
        slurm(ID="x", MIN=1, MAX=2),
        slurm(ID=3, MIN=1, MAX=7, COUNT=3, STEP=1),  # --array=1,3,7
        slurm(ID=8, MIN=1, MAX=7, STEP=1),
        slurm(ID=1, MIN=1, MAX=7, STEP=0),
    ):
        with pytest.raises(StoreError.__base__, match="--part slurm: "):
            parse_part("slurm", environment)
