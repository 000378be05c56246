"""One writer at a time: locks on files, which end with the process that holds them, however it ends.

A store's draft has its lock in its own folder; a folder that one command fills has it beside it.
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
from store.storage.atomic import UNFINISHED, check_folders_above

ATTEMPTS = 100  # at a lock whose holders finish, one after the other, while it is opened
_held: set[BinaryIO] = set()


@contextmanager
def sole_writer(folder: Path, what: str) -> Iterator[None]:
    """Hold the lock of a folder that is to be written; nothing of it stays at the end.

    Where the file system has no locks, as some that are shared over a network, a note says so and nothing is
    held: what a command writes is whole in any case, and two at once are rare.

    Args:
        folder: the folder, there or not.
        what: it will be, for the message.

    Raises:
        UserError: another process holds it, or nothing may be written there.
    """
    check_folders_above(folder)
    made: list[Path] = []
    lock = lock_of(folder)
    file = _acquired(lock, folder, what, made)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)  # before it is given back: whoever opened it meanwhile looks again
        release(file)
        for parent in made:
            with suppress(OSError):  # it holds something by now
                parent.rmdir()


def lock_of(folder: Path) -> Path:
    """Where a folder's lock lies: beside it, or in it where nothing may be written beside it."""
    real = Path(os.path.realpath(folder))
    inside = real.is_dir() and not os.access(real.parent, os.W_OK)  # a disk that is mounted there, say
    return (real if inside else real.parent) / f".{real.name}{UNFINISHED}lock"


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
                continue  # whoever held it has just removed it, or a folder above it
            if os.path.lexists(lock):
                raise UserError(
                    f"{lock}: a lock that may not be opened ({error.strerror}), of another user perhaps who "
                    f"writes {folder}; where nobody does, remove it, else name another place"
                ) from error
            raise UserError(
                f"{folder}: nothing can be written there ({error.strerror}); name another place"
            ) from error
    raise AssertionError


def acquire(lock: Path, busy: str, kind: type[UserError] = UserError, needed: bool = True) -> BinaryIO:
    """Take a lock; `release` gives it back.

    Args:
        lock: its file, which is made where it is absent; its folder must be there.
        busy: the message where another process holds it.
        kind: of the error.
        needed: whether to refuse a file system without locks, or to go on with a note.

    Raises:
        UserError: another process holds it, or the file system has no locks and one is needed.
        FileNotFoundError: its folder is gone, or the file was removed by whoever held it before.
    """
    file = lock.open("ab", buffering=0)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise kind(busy) from error
        except OSError as error:
            if needed:
                lock.unlink()  # which nobody can hold
                with suppress(OSError):  # it holds something besides
                    lock.parent.rmdir()
                raise kind(
                    f"{lock}: cannot be locked ({error.strerror}); write to a file system with locks"
                ) from error
            note(
                f"{lock.parent}: its file system has no locks ({error.strerror}), so a second command is not "
                "kept from writing there what this one writes"
            )
        if not os.path.samestat(lock.stat(), os.fstat(file.fileno())):
            raise FileNotFoundError(errno.ENOENT, "its lock is gone", str(lock))
    except BaseException:
        file.close()
        raise
    _held.add(file)
    return file


def release(file: BinaryIO) -> None:
    """Give a lock back."""
    _held.discard(file)
    file.close()


def _forget() -> None:
    """Close a parent's locks in its child, which would hold them for as long as it lives."""
    for file in _held:
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_forget)
