"""A store's provenance: the program's commit, and when it was started and finished."""

import os
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from bad_input import run, succeed
from made_store import SECONDS, make_store
from rich.progress import Progress

from store import provenance
from store.arrays.checksum import metadata_checksum
from store.drafts.local import LocalDraft
from store.layout import ArrayLayout
from store.provenance import as_utc, commit
from store.reader import FeatureStore
from store.verify import verify

SUFFIXES = (".zarr", ".h5")
REAL_NOW = provenance.now  # before any fixture stops the clock


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout of one file."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init")
    (folder / "cli.py").write_text("print()\n")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "a")
    return folder


def test_commit_of_a_checkout_clean_and_changed(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    (checkout / "feats.zarr").mkdir()
    (checkout / "notes.txt").write_text("untracked")
    assert commit(checkout) == {"id": head, "dirty": False}
    (checkout / "cli.py").write_text("print(1)\n")
    assert commit(checkout) == {"id": head, "dirty": True}


def test_a_hooks_environment_does_not_lead_elsewhere(checkout: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))
    assert commit(checkout) is not None


def test_no_commit_where_there_is_none(checkout: Path, tmp_path: Path, monkeypatch) -> None:
    (checkout / "installed").mkdir()
    assert commit(checkout / "installed") is None  # inside a checkout of something else
    git(tmp_path, "init")
    assert commit(tmp_path) is None  # of no commit yet
    (tmp_path / "broken" / ".git").mkdir(parents=True)
    assert commit(tmp_path / "broken") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(checkout) is None  # no git


def test_a_slow_git_is_not_waited_for(checkout: Path, tmp_path: Path, monkeypatch) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("store.provenance.GIT_SECONDS", 0.05)
    assert commit(checkout) is None


def test_extraction_records_its_commit_and_its_times(small_store: Path) -> None:
    store = FeatureStore(small_store)
    assert store.provenance["commit"] == commit()
    assert store.finished is not None
    assert store.provenance["device"] == store.provenance["identity"]["device"] == "cpu"
    text = succeed("store", "info", small_store).stdout
    assert f"started {store.provenance['begun']}, finished {as_utc(store.finished)}, on " in text
    assert "by tailcache 0.1.0" in text
    found = commit()
    assert found is None or f"commit {found['id']}" in text


def test_a_store_says_how_phase_one_was_trained(small_store: Path) -> None:
    training = FeatureStore(small_store).provenance["training"]
    lines = succeed("store", "info", small_store).stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("trained with ")]
    words = dict(word.rsplit(" ", 1) for word in line.removeprefix("trained with ").split(", "))
    assert next(iter(words)) == "recipe"
    named = {name.replace("_", "-"): str(value) for name, value in training.items() if value is not None}
    assert words == named | {"seed": "0"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_finished_is_a_root_array_under_a_checksum(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"s{suffix}"
    make_store(path)
    root = zarr.open_group(path, mode="r") if suffix == ".zarr" else h5py.File(path, "r")
    np.testing.assert_array_equal(root["finished"][:], np.array([SECONDS], np.int64), strict=True)
    store = FeatureStore(path)
    assert store.finished == SECONDS
    assert {"finished", "checksum/finished"} <= store.arrays.keys()


def test_the_clock_is_seconds_since_1970() -> None:
    assert abs(REAL_NOW() - time.time()) < 60
    assert as_utc(SECONDS) == "2023-11-14T22:13:20+00:00"
    assert as_utc(2**62) == f"{2**62} s after 1970"


def test_a_store_that_was_all_written_before_a_kill_keeps_its_time(tmp_path: Path, monkeypatch) -> None:
    def killed(draft: LocalDraft, replaces: bool) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalDraft, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            make_store(tmp_path / "s.zarr")
    monkeypatch.setattr("store.provenance.now", lambda: SECONDS + 100)
    make_store(tmp_path / "s.zarr", resume=True)
    assert FeatureStore(tmp_path / "s.zarr").finished == SECONDS


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_another_time_is_a_fault(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"s{suffix}"
    make_store(path)
    root = zarr.open_group(path, mode="r+") if suffix == ".zarr" else h5py.File(path, "r+")
    root["finished"][0] = SECONDS + 1
    if suffix == ".h5":
        root.close()
    result = run("store", "verify", path)
    assert (result.exit_code, "finished: rows 0 to 0 do not match" in result.stdout) == (1, True)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_stores_that_do_not_say_when_they_were_finished(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"s{suffix}"
    make_store(path)
    store, absent = FeatureStore(path), ("finished", "checksum/finished")
    layouts = {
        n: ArrayLayout(a.shape, a.dtype.name, 1, 1) for n, a in store.arrays.items() if n not in absent
    }
    root = zarr.open_group(path, mode="r+") if suffix == ".zarr" else h5py.File(path, "r+")
    for name in absent:
        del root[name]
    root["checksum/metadata"][0] = metadata_checksum(store.attributes, layouts)
    if suffix == ".h5":
        root.close()
    store = FeatureStore(path)
    assert store.finished is None
    assert list(verify(store, Progress(disable=True))) == []
    assert "complete" in succeed("store", "info", path).stdout
