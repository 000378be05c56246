"""Files and folders that appear whole or not at all.

Content is written beside its destination under a name of its own, flushed to disk, and renamed into
place; an exception or a kill on the way leaves the destination as it was. A symbolic link is followed:
what it leads to is written, and the link stays.
"""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.errors import UserError

UNFINISHED = ".unfinished-"


def _unfinished_name(path: Path) -> Path:
    # Not the process's number alone: threads, and containers that share a disk, have the same.
    return path.with_name(f".{path.name}{UNFINISHED}{os.getpid()}-{secrets.token_hex(4)}")


def is_leftover(name: str) -> bool:
    """Whether a file of this name is what a killed process of ours left on its way."""
    return name.startswith(".") and UNFINISHED in name


def _make_parent(path: Path) -> None:
    check_folders_above(path)
    path.parent.mkdir(parents=True, exist_ok=True)


def check_folders_above(path: Path) -> None:
    """Raise UserError where something above a path is a file."""
    above = next((parent for parent in _real(path).parents if parent.exists()), None)
    if above is not None and not above.is_dir():
        raise UserError(f"{above}: is a file, so {path} cannot be written under it; name another path")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike Path.resolve, no error where links run in circles


def sync_file(path: Path) -> None:
    """Put a file's content on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Put a folder's list of names on the disk."""
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
    unfinished = _unfinished_name(path)
    try:
        yield unfinished
        sync_file(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder to fill; it becomes `path`, replacing what was there, when the block ends well."""
    path = _real(path)
    _make_parent(path)
    unfinished = _unfinished_name(path)
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
    """Write `content` as indented JSON to `path`, whole or not at all. NaN is refused: use None."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def foreign_names(path: Path, ours: Collection[str]) -> str | None:
    """What a folder holds besides `ours`, or that it is no folder, as `check_replaceable` asks for it."""
    if not path.is_dir():
        return "is a file"
    names = {entry.name for entry in path.iterdir()}
    others = sorted(name for name in names - set(ours) if not is_leftover(name))
    return f"holds {others[0]}" if others else None


def check_not_both(path: Path | str, what: str, resume: bool, overwrite: bool) -> None:
    """Raise UserError where a user asks to go on with `what` lies in a path, and to replace it."""
    if resume and overwrite:
        raise UserError(f"{path}: --resume goes on with {what} and --overwrite replaces it; pass one of them")


def check_replaceable(path: Path, what: str, foreign: Callable[[Path], str | None], overwrite: bool) -> None:
    """Raise UserError when `path` holds something that may not be replaced.

    Args:
        path: the folder to write.
        what: it will be, for the message.
        foreign: names something in a path that is not of such a folder ("holds thesis.txt"), None where all
            of it is. What is foreign is never replaced.
        overwrite: whether the user asked to replace it.
    """
    check_folders_above(path)
    if Path.cwd().is_relative_to(_real(path)):
        raise UserError(f"{path}: you work in this folder, or under it; name a folder for the {what}")
    if not path.exists() or (path.is_dir() and all(is_leftover(entry.name) for entry in path.iterdir())):
        return
    if found := foreign(path):
        raise UserError(f"{path}: already exists and is no {what} alone (it {found}); name another path")
    if not overwrite:
        raise UserError(f"{path}: already exists; pass --overwrite to replace this {what}, or name another")
