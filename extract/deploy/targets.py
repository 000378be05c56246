"""Whether a file or folder may be written; made before anything heavy is imported."""

import os
from collections.abc import Iterable
from pathlib import Path

from store.errors import UserError, check_utf8
from store.storage.atomic import check_folders_above, check_not_in_store


def check_new_file(path: Path, overwrite: bool, read: Iterable[str]) -> None:
    """Raise UserError for a file that cannot be written.

    Args:
        path: the file.
        overwrite: whether the user asked to replace it.
        read: files that the same command reads; they are never replaced.
    """
    check_utf8(str(path))
    check_folders_above(path)
    check_not_in_store(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file in it")
    if not os.path.lexists(path):
        return
    check_not_read(path, read)
    if not overwrite:
        raise UserError(f"{path}: already exists; pass --overwrite to replace it, or name another file")


def check_not_read(path: Path, read: Iterable[str | Path]) -> None:
    """Raise UserError if a file to write is one of those that the same command reads."""
    if path.exists() and any(os.path.exists(other) and path.samefile(other) for other in read):
        raise UserError(f"{path}: this command reads that file, so it cannot write it; name another")


def check_new_folder(path: Path) -> None:
    """Raise UserError if something is in a folder to write: only one that this run fills is replaced."""
    check_utf8(str(path))
    check_folders_above(path)
    check_not_in_store(path)
    if os.path.lexists(path) and not path.is_dir():
        raise UserError(f"{path}: is a file; name a new folder")
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"{path}: is not empty; name a new folder, so that no file of yours is replaced")
