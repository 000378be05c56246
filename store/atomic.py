"""Files and folders that appear whole or not at all.

Content is written beside its destination under a name of its own, flushed to disk, and renamed into
place; an exception or a kill on the way leaves the destination as it was.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.errors import UserError


def _unfinished_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.unfinished-{os.getpid()}")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes `path` when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished_name(path)
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder to fill; it becomes `path`, replacing what was there, when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished_name(path)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        replaced = path.with_name(f".{path.name}.replaced-{os.getpid()}")
        if path.exists():
            os.replace(path, replaced)
        os.replace(unfinished, path)
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


def refuse_existing(path: Path, what: str, overwrite: bool) -> None:
    """Raise UserError when `path` holds something already and the user did not ask to replace it."""
    if not path.exists() or overwrite:
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    raise UserError(f"{path}: already exists; pass --overwrite to replace this {what}, or name another")
