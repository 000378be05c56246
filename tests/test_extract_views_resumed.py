"""Interrupted extractions of several views: resumed to the same bytes, or refused."""

import itertools
import json
import shutil
import signal
from pathlib import Path

import pytest
from bad_input import refuse, run, succeed
from dying import die_at_commit
from faults import ended, forked
from made_views import BATCH, V, assert_same, command

from store.drafts.lifecycle import draft_folder
from store.reader import FeatureStore
from store.writer import StoreWriter

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.mark.usefixtures("several_blocks")
@pytest.mark.parametrize(
    ("store", "options"),
    [
        ("s.zarr", []),
        ("s.h5", ["--dtype", "int8"]),
        ("s.h5", ["--codec", "zstd"]),
    ],
    ids=["zarr", "h5", "packed-h5"],
)
def test_interrupted_after_any_view_and_resumed(small_ckpt, store, options, monkeypatch):
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 1)
    extraction = command(small_ckpt, store, *options)
    succeed(*command(small_ckpt, f"whole{Path(store).suffix}", *options))
    write = StoreWriter.write
    for n_writes in (V + 1, 2 * V + 2, 4 * V, 5 * V - 1):  # within a batch's views, and between batches
        n_left = itertools.count(n_writes, -1)

        def interrupted(*arguments, n_left=n_left, **named) -> None:
            if next(n_left) == 0:
                raise KeyboardInterrupt
            write(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(StoreWriter, "write", interrupted)
            assert run(*extraction).exit_code == 130
        assert draft_folder(Path(store)).exists()
        succeed(*extraction, "--resume")
        assert_same(Path(store), Path(f"whole{Path(store).suffix}"))
        Path(store).unlink() if store.endswith(".h5") else shutil.rmtree(store)


@pytest.mark.parametrize("store", ["s.zarr", "s.h5"])
def test_an_extraction_of_views_is_killed_and_resumed(small_ckpt, store, monkeypatch):
    def dying() -> None:
        die_at_commit(3)
        run(*command(small_ckpt, store))

    monkeypatch.setattr("store.layout.BLOCK_BYTES", 1)
    assert ended(*forked(dying)) == -signal.SIGKILL
    n_begun = len((draft_folder(Path(store)) / "commits.jsonl").read_text().splitlines())
    assert n_begun == 3
    succeed(*command(small_ckpt, store), "--resume")
    succeed(*command(small_ckpt, f"whole-{store}"))
    assert_same(Path(store), Path(f"whole-{store}"))


def begin(extraction: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave an extraction interrupted after two blocks."""
    write = StoreWriter.write

    def interrupted(writer, split, start, *rows, **named) -> None:
        if start >= 2 * BATCH * named["every"]:
            raise KeyboardInterrupt
        write(writer, split, start, *rows, **named)

    with monkeypatch.context() as patch:
        patch.setattr("store.layout.BLOCK_BYTES", 1)
        patch.setattr(StoreWriter, "write", interrupted)
        assert run(*extraction).exit_code == 130


def test_another_number_of_views_is_not_gone_on_with(small_ckpt, monkeypatch):
    begin(command(small_ckpt, "s.zarr"), monkeypatch)
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 1)
    says = "s.zarr.unfinished: was started with another number of views (3) than now"
    for n_views in (1, 2):
        other = [*command(small_ckpt, "s.zarr", "--resume"), "--views", n_views]
        refuse(*other, says=[f"{says} ({n_views})", "use the same, or pass --overwrite"])
    succeed(*command(small_ckpt, "s.zarr", "--resume"))
    other = [*command(small_ckpt, "s.zarr", "--resume"), "--views", 1]
    refuse(*other, says=["s.zarr: was started with another number of views (3) than now (1)"])
    succeed(*other[:-3], "--overwrite", "--views", 1)
    assert FeatureStore(Path("s.zarr")).read("train").n_views == 1


def forget_views(folder: Path) -> None:
    """Make a draft look as if written by a program with only one view."""
    begun = json.loads((folder / "begun.json").read_text())
    for identity in (begun["identity"], begun["attributes"]["provenance"]["identity"]):
        del identity["number of views"]
    del begun["attributes"]["provenance"]["config"]["views"]
    (folder / "begun.json").write_text(json.dumps(begun))


def test_what_was_begun_before_there_were_views_is_gone_on_with(small_ckpt, monkeypatch):
    one_view = [*command(small_ckpt, "s.h5"), "--views", 1]
    begin(one_view, monkeypatch)
    forget_views(draft_folder(Path("s.h5")))
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 1)
    refuse(*command(small_ckpt, "s.h5"), "--resume", says=["another number of views (1) than now (3)"])
    succeed(*one_view, "--resume")
    succeed(*command(small_ckpt, "whole.h5"), "--views", 1)
    assert_same(Path("s.h5"), Path("whole.h5"))
