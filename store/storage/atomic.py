"""Files and folders that appear whole or not at all.

Content is written beside its destination under a temporary name, synced, and renamed into place; an
exception or a kill before that leaves the destination as it was. A symbolic link is followed: its target is
written, and the link stays.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.errors import UserError

TEMPORARY = ".unfinished-"


def _temporary_name(path: Path) -> Path:
    # The PID alone is not enough: threads share it, and so do containers on one disk.
    return path.with_name(f".{path.name}{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")


def is_leftover(name: str) -> bool:
    """Whether a file of this name was left by a killed process of this program."""
    return name.startswith(".") and TEMPORARY in name


def _make_parent(path: Path) -> None:
    check_folders_above(path)
    path.parent.mkdir(parents=True, exist_ok=True)


def check_folders_above(path: Path) -> None:
    """Raise UserError if a parent of a path is a file."""
    above = next((parent for parent in _real(path).parents if parent.exists()), None)
    if above is not None and not above.is_dir():
        raise UserError(f"{above}: is a file, so {path} cannot be written under it; name another path")


def check_not_in_store(path: Path) -> None:
    """Raise UserError for a path in a zarr store, which must hold nothing else."""
    found = next((parent for parent in _real(path).parents if (parent / "zarr.json").is_file()), None)
    if found is not None:
        raise UserError(
            f"{path}: lies within {found}, a zarr store, which must hold nothing else; name another path"
        )


def check_not_root(path: Path, what: str) -> None:
    """Raise UserError for the root of the file system, under any name, as the folder for something."""
    if _real(path) == Path(_real(path).anchor):
        raise UserError(f"{path}: is the root of the file system; use a folder for {what}")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike Path.resolve, no error where links run in circles


def sync_file(path: Path) -> None:
    """Sync a file's content to disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Sync a folder's list of names to disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes `path` when the block ends without an exception."""
    path = _real(path)
    _make_parent(path)
    unfinished = _temporary_name(path)
    try:
        yield unfinished
        sync_file(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder to fill; it becomes `path`, replacing what was there, unless the block raises."""
    path = _real(path)
    _make_parent(path)
    unfinished = _temporary_name(path)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        for file in unfinished.rglob("*"):
            if file.is_file():
                sync_file(file)
        replaced = path.with_name(f".{path.name}.replaced-{os.getpid()}")
        try:
            if path.exists():
                os.replace(path, replaced)
            os.replace(unfinished, path)
        except BaseException:  # a full disk, or Ctrl-C between the two renames
            if replaced.exists() and not path.exists():
                os.replace(replaced, path)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON to `path`, whole or not at all. NaN is an error: use None."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def foreign_names(path: Path, ours: Collection[str], like_ours: str = "") -> str | None:
    """What a folder holds besides `ours` ("holds thesis.txt"), or "is a file"; None if nothing.

    Args:
        path: the folder. It is listed once: what other processes add to it afterwards is theirs.
        ours: names that belong there.
        like_ours: a regular expression of whole names that do too.
    """
    if not path.is_dir():
        return "is a file"
    names = {entry.name for entry in path.iterdir()}
    names -= {name for name in names if is_leftover(name) or re.fullmatch(like_ours, name)}
    others = sorted(names - set(ours))
    return f"holds {others[0]}" if others else None


def check_not_both(path: Path | str, what: str, resume: bool, overwrite: bool) -> None:
    """Raise UserError if the user asks both to resume and to replace `what` ("a run") is in a path."""
    if resume and overwrite:
        raise UserError(
            f"{path}: --resume continues {what} and --overwrite replaces it; pass only one of them"
        )


def check_replaceable(path: Path, what: str, foreign: Callable[[Path], str | None], overwrite: bool) -> None:
    """Raise UserError if `path` holds something that may not be replaced.

    Args:
        path: the folder to write.
        what: what it will be, for the message: "run".
        foreign: says what in a path does not belong to such a folder ("holds thesis.txt"), None if all of it
            does. A path with anything foreign is never replaced.
        overwrite: whether the user asked to replace it.
    """
    check_folders_above(path)
    check_not_in_store(path)
    if Path.cwd().is_relative_to(_real(path)):
        raise UserError(
            f"{path}: is the working directory, or a folder above it; name another path for the {what}"
        )
    if not path.exists() or (path.is_dir() and all(is_leftover(entry.name) for entry in path.iterdir())):
        return
    if found := foreign(path):
        raise UserError(
            f"{path}: already exists and is not a {what} that may be replaced (it {found}); name another path"
        )
    if not overwrite:
        raise UserError(f"{path}: already exists; pass --overwrite to replace this {what}, or name another")
