"""Writers killed at random moments, and writers that compete: all are real processes."""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import faults
import pytest
from faults import CODEC_OF, KillCampaign, ended, forked, killed_at_line
from made_store import contents, made_plan, make_store

from store.drafts.lifecycle import check_writable, draft_folder
from store.drafts.local import LocalDraft
from store.errors import UserError
from store.writer import StoreWriter, write_store

N_KILLS = 20  # for each way to write a store
WRITTEN_APART = ("s.zarr", "s.h5", "packed.h5")
pytestmark = pytest.mark.forks


@pytest.fixture(params=WRITTEN_APART)
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where to write a store that takes several blocks."""
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 2048)
    monkeypatch.setattr("made_store.CODEC", CODEC_OF[request.param])
    monkeypatch.setattr(os, "fsync", lambda file: None)  # a killed process loses nothing it did not sync
    return tmp_path / request.param


def test_killed_at_any_moment_and_resumed(path):
    campaign = KillCampaign(path)
    campaign.many(range(N_KILLS))
    assert campaign.n_kills >= N_KILLS  # writers that ended before they were killed do not count


def put_off_writing(patch: pytest.MonkeyPatch) -> None:
    """Make writers record blocks that they only write at the end, and trust the records."""
    begin, finish = StoreWriter.__init__, StoreWriter.finish

    def begin_and_collect(writer: StoreWriter, *arguments) -> None:
        begin(writer, *arguments)
        writer.write_block, writer.put_off = writer._container.write_block, []
        writer._container.write_block = lambda *block: writer.put_off.append(block)

    def write_and_finish(writer: StoreWriter) -> None:
        writer._wait(0)
        for block in writer.put_off:
            writer.write_block(*block)
        writer._container.write_block = writer.write_block
        finish(writer)

    patch.setattr(StoreWriter, "_holds", lambda writer, commit: True)
    patch.setattr(StoreWriter, "__init__", begin_and_collect)
    patch.setattr(StoreWriter, "finish", write_and_finish)


def test_the_campaign_notices_records_ahead_of_their_blocks(path, monkeypatch):
    campaign = KillCampaign(path)
    put_off_writing(monkeypatch)
    with pytest.raises(faults.ViolationError):
        campaign.many(range(N_KILLS))


def half_done(path: Path) -> None:
    """Leave the draft of a store whose writer was killed."""
    line = faults.number_of_lines(partial(make_store, path)) // 2
    path.unlink() if path.is_file() else shutil.rmtree(path)
    assert killed_at_line(partial(make_store, path), line) < 0


def refusal(action) -> None:
    """In its own process: exit code 3 for an error with these words, 0 for success."""
    try:
        action()
    except UserError as error:
        os._exit(3 if "another process" in str(error) or "already exists" in str(error) else 4)


def test_a_second_process_is_refused(path):
    with write_store(path, made_plan(), resume=False, overwrite=False):
        for options in ({"resume": True}, {"overwrite": True}):
            assert ended(*forked(partial(refusal, partial(make_store, path, **options)))) == 3
    assert not draft_folder(path).exists()


def test_two_that_resume_at_once(path):
    """Both start at the same instant, repeatedly: at least one finishes, and neither harms the other."""
    make_store(path)
    whole = contents(path)
    for _ in range(5):
        path.unlink() if path.is_file() else shutil.rmtree(path)
        half_done(path)
        start, go = os.pipe()

        def together(start: int = start) -> None:
            os.read(start, 1)
            refusal(partial(make_store, path, resume=True))

        children = [forked(together) for _ in range(2)]
        os.write(go, b"!!")
        codes = [ended(*child) for child in children]
        assert sorted(codes) in ([0, 0], [0, 3])
        assert contents(path) == whole
        assert not draft_folder(path).exists()
        os.close(start)
        os.close(go)


@pytest.mark.parametrize("resume", [True, False])
def test_another_process_finishes_between_the_look_and_the_lock(path, resume):
    """The second looked at the draft, or saw none, before the first finished, and gets the lock after."""
    if resume:
        half_done(path)
    look = pytest.MonkeyPatch()

    def finished_by_another(draft: LocalDraft) -> AbstractContextManager:
        look.undo()
        check_writable(path, resume, False)
        make_store(path, resume=resume)
        return draft.sole_writer()

    look.setattr(LocalDraft, "sole_writer", finished_by_another)
    with pytest.raises(UserError, match="has just finished this store" if resume else "already exists"):
        make_store(path, resume=resume)
    whole = contents(path)
    assert not draft_folder(path).exists()
    make_store(path, overwrite=True)
    assert contents(path) == whole


def test_a_writer_looks_once_under_its_lock(path, monkeypatch):
    """It looks at the store and the draft once; callers that compute first have looked before."""
    half_done(path)
    asked = []

    def counted(name: str) -> Callable:
        original = getattr(LocalDraft, name)

        def call(draft: LocalDraft, *arguments: object) -> object:
            asked.append((name, (draft.folder / "lock").exists()))
            return original(draft, *arguments)

        return call

    for name in ("begun", "check_vacant"):
        monkeypatch.setattr(LocalDraft, name, counted(name))
    make_store(path, resume=True)
    assert asked == [("begun", True), ("check_vacant", True)]
