import os
import subprocess
import sys
from pathlib import Path

import pytest

from store.errors import UserError
from store.storage.atomic import (
    check_replaceable,
    foreign_names,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)

ROOT = Path(__file__).parent.parent


def foreign(path):
    return foreign_names(path, ["head.pt"])


@pytest.fixture
def old_file(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    return tmp_path / "file.txt"


@pytest.fixture
def old_folder(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "head.pt").write_text("old")
    return tmp_path / "run"


def fail_half_way(kind, path, error):
    with kind(path) as unfinished:
        (unfinished / "head.pt" if unfinished.is_dir() else unfinished).write_text("half of the n")
        raise error


def test_a_file_and_its_folders_are_made(tmp_path):
    write_text(tmp_path / "deep" / "down" / "file.txt", "ä")
    assert (tmp_path / "deep" / "down" / "file.txt").read_bytes() == "ä".encode()
    assert os.listdir(tmp_path / "deep" / "down") == ["file.txt"]


def test_a_file_is_replaced_at_the_end_and_not_before(old_file):
    with whole_file(old_file) as unfinished:
        unfinished.write_text("new")
        assert old_file.read_text() == "old"
        assert unfinished.parent == old_file.parent  # on one file system, or no rename
        assert unfinished.name.startswith(".")
    assert old_file.read_text() == "new"
    assert os.listdir(old_file.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file(old_file, error):
    with pytest.raises(error):
        fail_half_way(whole_file, old_file, error)
    assert old_file.read_text() == "old"
    assert os.listdir(old_file.parent) == ["file.txt"]


def test_nan_is_no_json_and_leaves_the_old_file(old_file):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(old_file, {"accuracy": float("nan")})
    assert old_file.read_text() == "old"


def test_a_folder_replaces_the_whole_old_one(old_folder):
    with whole_folder(old_folder) as unfinished:
        (unfinished / "summary.json").write_text("new")
        assert os.listdir(old_folder) == ["head.pt"]
    assert os.listdir(old_folder) == ["summary.json"]
    assert os.listdir(old_folder.parent) == ["run"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_folder(old_folder, error):
    with pytest.raises(error):
        fail_half_way(whole_folder, old_folder, error)
    assert (old_folder / "head.pt").read_text() == "old"
    assert os.listdir(old_folder.parent) == ["run"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_rename_that_fails_puts_the_old_folder_back(old_folder, monkeypatch, error):
    rename = os.replace

    def fail_on_new(source, target):
        if ".unfinished-" in str(source):
            raise error("no more room")
        rename(source, target)

    monkeypatch.setattr("store.storage.atomic.os.replace", fail_on_new)
    with pytest.raises(error, match="no more room"), whole_folder(old_folder):
        pass
    assert (old_folder / "head.pt").read_text() == "old"
    assert os.listdir(old_folder.parent) == ["run"]


@pytest.mark.parametrize("kind", ["whole_file", "whole_folder"])
def test_a_kill_leaves_what_was_there(old_file, old_folder, kind):
    path = old_file if kind == "whole_file" else old_folder
    code = (
        f"import os, signal; from pathlib import Path; from store.storage.atomic import {kind}\n"
        f"with {kind}(Path({str(path)!r})) as unfinished:\n"
        "    (unfinished / 'head.pt' if unfinished.is_dir() else unfinished).write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT)
    assert done.returncode == -9
    assert old_file.read_text() == (old_folder / "head.pt").read_text() == "old"


@pytest.mark.parametrize("below", ["out", "deep/out"])
@pytest.mark.parametrize("kind", [whole_file, whole_folder])
def test_a_file_above_is_named(old_file, kind, below):
    with pytest.raises(UserError, match=f"{old_file}: is a file, so .* name another"), kind(old_file / below):
        pass
    assert old_file.read_text() == "old"


def test_only_its_own_kind_is_replaced_and_only_on_demand(old_folder, old_file, tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nothing", tmp_path / "empty"):
        check_replaceable(path, "run", foreign, overwrite=False)
    check_replaceable(old_folder, "run", foreign, overwrite=True)
    with pytest.raises(UserError, match="already exists; pass --overwrite to replace this run"):
        check_replaceable(old_folder, "run", foreign, overwrite=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    for path, found in ((tmp_path / "other", "holds thesis.txt"), (old_file, "is a file")):
        for overwrite in (True, False):
            with pytest.raises(UserError, match=f"is not a run that may be replaced .it {found}"):
                check_replaceable(path, "run", foreign, overwrite)


@pytest.mark.parametrize("path", ["", ".", "/", "..", "../{here}"])
def test_a_folder_to_be_replaced_is_never_the_working_one(tmp_path, monkeypatch, path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="is the working directory, or a folder above it; name another"):
        check_replaceable(Path(path.format(here="here")), "run", foreign, overwrite=True)


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_followed_and_stays(tmp_path, exists):
    target, link = tmp_path / "disk" / "run", tmp_path / "link"
    target.parent.mkdir()
    if exists:
        target.mkdir()
        (target / "head.pt").write_text("old")
    link.symlink_to(target)
    with whole_folder(link) as unfinished:
        assert unfinished.parent == target.parent  # on the target's file system
        (unfinished / "summary.json").write_text("new")
    assert link.is_symlink()
    assert os.listdir(target) == ["summary.json"]
    file = tmp_path / "link.txt"
    file.symlink_to(target / "file.txt")
    write_text(file, "new")
    assert file.is_symlink()
    assert (target / "file.txt").read_text() == "new"
