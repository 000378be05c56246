"""One writer at a time: locks on files, which end with the process that holds them, however it ends.

The lock of a store's draft is inside the draft; that of a folder that a command fills is beside the folder.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from store.errors import UserError
from store.notes import note
from store.storage.atomic import TEMPORARY, check_folders_above

ATTEMPTS = 100  # to open a lock whose holders keep finishing meanwhile
_held: set[BinaryIO] = set()


@contextmanager
def sole_writer(folder: Path, what: str) -> Iterator[None]:
    """Hold the lock of a folder while writing it; the lock's file is removed at the end.

    On a file system without locks, such as some network shares, a note says so and no lock is held: every
    file is written whole in any case, and two writers at once are rare.

    Args:
        folder: the folder, which may not exist yet.
        what: what is written there, for the error: "training run".

    Raises:
        UserError: another process holds the lock, or the folder cannot be written.
    """
    check_folders_above(folder)
    made: list[Path] = []
    lock = lock_of(folder)
    file = _acquired(lock, folder, what, made)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)  # before its release: whoever opened it meanwhile then tries again
        release(file)
        for parent in made:
            with suppress(OSError):  # no longer empty
                parent.rmdir()


def lock_of(folder: Path) -> Path:
    """The lock of a folder: beside it, or inside it if its parent cannot be written."""
    real = Path(os.path.realpath(folder))
    inside = real.is_dir() and not os.access(real.parent, os.W_OK)  # a mounted disk, for example
    return (real if inside else real.parent) / f".{real.name}{TEMPORARY}lock"


def _acquired(lock: Path, folder: Path, what: str, made: list[Path]) -> BinaryIO:
    busy = f"{folder}: another process is writing this {what}; wait for it, or stop it"
    for attempt in range(ATTEMPTS):
        try:
            missing = [parent for parent in lock.parents if not parent.exists()]
            lock.parent.mkdir(parents=True, exist_ok=True)
            made += [parent for parent in missing if parent not in made]
            return acquire(lock, busy, needed=False)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and attempt < ATTEMPTS - 1:
                continue  # the previous holder has just removed it, or a folder above it
            if os.path.lexists(lock):
                raise UserError(
                    f"{lock}: this lock cannot be opened ({error.strerror}), perhaps because another user "
                    f"is writing {folder}; remove it if nobody is, or name another place"
                ) from error
            raise UserError(f"{folder}: cannot be written ({error.strerror}); name another place") from error
    raise AssertionError


def acquire(
    lock: Path, busy: str, error_type: type[UserError] = UserError, needed: bool = True, wait: bool = False
) -> BinaryIO:
    """Acquire a lock, until `release`.

    Args:
        lock: its file, created if absent; its folder must exist.
        busy: the error message if another process holds it.
        error_type: of the errors raised.
        needed: whether a file system without locks is an error, or only a note.
        wait: whether to wait for a process that holds it.

    Raises:
        UserError: another process holds it and is not waited for, or the file system has no locks and one is
            needed.
        FileNotFoundError: its folder is gone, or the previous holder removed the file.
    """
    file = lock.open("ab", buffering=0)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise error_type(busy) from error
        except OSError as error:
            if needed:
                lock.unlink()  # nobody can hold it
                with suppress(OSError):  # not empty
                    lock.parent.rmdir()
                raise error_type(
                    f"{lock}: cannot be locked ({error.strerror}); write to a file system with locks"
                ) from error
            note(
                f"{lock.parent}: its file system has no locks ({error.strerror}), so nothing stops a "
                "second command from writing there at the same time"
            )
        if not os.path.samestat(lock.stat(), os.fstat(file.fileno())):
            raise FileNotFoundError(errno.ENOENT, "its lock is gone", str(lock))
    except BaseException:
        file.close()
        raise
    _held.add(file)
    return file


def release(file: BinaryIO) -> None:
    """Release a lock."""
    _held.discard(file)
    file.close()


def _forget() -> None:
    """Close inherited locks in a forked child, which would otherwise hold them as long as it lives."""
    for file in _held:
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_forget)
