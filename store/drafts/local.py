"""The draft of a store on a local disk.

`feats.zarr.unfinished` holds the store under its own name, `begun.json` (what the store will be),
`commits.jsonl` (the blocks on disk), `lock`, and at the end `replaced`, the store that was there before. If
it is written in parts, each has `commits.2-of-3.jsonl` and `lock.2-of-3`, and those that begin wait for each
other at `lock.begin`.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from store.containers.detect import Container, container, foreign_to_store
from store.drafts.journal import CommitLog
from store.errors import InUseError, StoreError
from store.layout import ArrayLayout
from store.spec import parse_begun
from store.storage.atomic import TEMPORARY, check_replaceable, foreign_names, sync_folder, write_json
from store.storage.location import draft_place
from store.storage.lock import acquire, release

TURN = "lock.begin"
OF_PARTS = r"(lock|commits)\..*"  # names of files in a draft


class LocalDraft:
    """The draft of one store. `S3Draft` has the same methods for a bucket.

    Attributes:
        path: where the store will be; links are followed.
        folder: where it is written until it is complete.
    """

    def __init__(self, path: Path):
        self.path = Path(os.path.realpath(path))
        self.folder = draft_place(self.path)
        self._asked = path

    def __str__(self) -> str:
        return str(self.folder)

    def begun(self) -> dict[str, Any] | None:
        """The content of begun.json; None if there is no draft, or one killed before it had that file."""
        try:
            return parse_begun((self.folder / "begun.json").read_bytes(), self)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def begin(self, begun: dict[str, Any]) -> None:
        """Write begun.json; from then on the draft can be resumed."""
        write_json(self.folder / "begun.json", begun)
        sync_folder(self.folder)
        sync_folder(self.folder.parent)

    def is_published(self) -> bool:
        """Whether the path holds a store, and the draft no store that still has to replace it."""
        parts = self.folder / f"{self.path.name}.parts"
        return self.path.exists() and not (self.folder / self.path.name).exists() and not parts.exists()

    def check_vacant(self, may_replace: bool) -> None:
        """Raise UserError if something else is at the store's path, or at the draft's."""
        if self.path.is_symlink() or os.path.ismount(self.path):
            what = "a link that leads to itself" if self.path.is_symlink() else "a mount point"
            raise StoreError(f"{self._asked}: is {what}, and cannot become a store; name another path")
        check_replaceable(self._asked, "store", foreign_to_store, may_replace)
        self._check_ours()

    def _check_ours(self) -> None:
        """Raise StoreError if the folder holds something else, or is a file."""
        name = self.path.name
        trees = (name, f"{name}.parts", f"{name}.assembling")
        ours = ("begun.json", "commits.jsonl", "lock", "replaced", *trees)
        found = None
        with suppress(FileNotFoundError):  # of several that end, another one may remove it at any moment
            found = self.folder.exists() and foreign_names(self.folder, ours, OF_PARTS)
        if found and self.folder.exists():
            raise StoreError(
                f"{self.folder}: is needed for the store's draft, but {found}; move it elsewhere"
            )

    def check_free(self) -> None:
        """Raise StoreError if another process holds the lock."""
        if (self.folder / "lock").exists():
            with _held(self.folder / "lock"):
                pass

    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        """Create the folder if it is missing, and hold its lock and those of all parts.

        If it has no begun.json at the end, it is removed, its lock last: until then no other process can use
        it.

        Raises:
            StoreError: another process holds a lock, or the folder is not a draft.
        """
        with self._main_lock(), ExitStack() as of_parts:
            for lock in sorted(self.folder.glob("lock.*-of-*")):
                of_parts.enter_context(_held(lock, _of_part(lock.name)))
            yield

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Hold the lock as `sole_writer` does, but of no part, and wait for other parts that begin or end.

        Raises:
            StoreError: the whole store is being written or completed, or the folder is not a draft.
        """
        with self.waiting(), self._main_lock():
            yield

    @contextmanager
    def part_writer(self, part: str) -> Iterator[None]:
        """Hold the lock of one part, which must be taken while beginning."""
        with _held(self.folder / f"lock.{part}", _of_part(part)):
            yield

    def part_log(self, part: str) -> CommitLog:
        """The log of the blocks of one part."""
        return CommitLog(self.folder / f"commits.{part}.jsonl")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for other processes that begin parts, or complete a store of parts, and make them wait."""
        lock = self.folder / TURN
        while True:
            with suppress(FileNotFoundError):  # the folder was removed meanwhile
                self._make_folder()
                file = acquire(lock, "", StoreError, wait=True)
                break
        try:
            yield
        finally:
            if not (self.folder / "begun.json").exists():
                lock.unlink(missing_ok=True)
                with suppress(OSError):  # another process may be using it by now
                    self.folder.rmdir()
            release(file)

    def _remove_turn(self) -> None:
        """Remove the lock at which others wait, unless one holds it, which then removes it."""
        with suppress(StoreError, FileNotFoundError):
            if (self.folder / TURN).exists():
                file = acquire(self.folder / TURN, "", StoreError)
                (self.folder / TURN).unlink()
                release(file)

    def _make_folder(self) -> None:
        """Create the folder if it is missing; FileNotFoundError if another process removes it meanwhile."""
        self._check_ours()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if isinstance(error, FileExistsError) and not self.folder.exists():
                raise FileNotFoundError(errno.ENOENT, "was removed", str(self.folder)) from error
            raise StoreError(
                f"{self.folder}: cannot be created ({error.strerror}); name another path"
            ) from error

    @contextmanager
    def _main_lock(self) -> Iterator[None]:
        try:
            self._make_folder()
        except FileNotFoundError as error:
            raise _just_finished(self.folder) from error
        with _held(self.folder / "lock"):
            try:
                yield
            finally:
                if not (self.folder / "begun.json").exists():
                    self.clear()
                    (self.folder / "lock").unlink()
                    self._remove_turn()
                    with suppress(OSError):  # another process may be using it by now
                        self.folder.rmdir()

    def container(self, layouts: dict[str, ArrayLayout], state: dict[str, Any]) -> Container:
        """The writer of the draft's container."""
        return container(self.folder / self.path.name, layouts, state)

    def log(self) -> CommitLog:
        """The log of the blocks on disk, with those of all parts."""
        return CommitLog(self.folder / "commits.jsonl", *self.folder.glob("commits.*-of-*.jsonl"))

    def tidy(self) -> None:
        """Remove temporary files that a killed writer left."""
        for file in self.folder.rglob(f".*{TEMPORARY}*"):
            file.unlink()

    def remains(self) -> bool:
        """Whether any part of the draft exists."""
        return self.folder.exists()

    def discard(self) -> None:
        """Remove the draft of an earlier attempt; a store that it had moved aside is put back."""
        replaced = self.folder / "replaced"
        if replaced.exists() and not self.path.exists():  # killed between two renames
            os.replace(replaced, self.path)
        self.clear()

    def clear(self) -> None:
        """Remove all of the draft but its lock, which is still held, and that at which others wait.

        `begun.json` goes first, so that a kill in between leaves nothing that looks like a draft to resume.
        """
        self._check_ours()
        (self.folder / "begun.json").unlink(missing_ok=True)
        for entry in self.folder.iterdir():
            if entry.name not in ("lock", TURN):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def confirm_lock(self) -> None:
        """Nothing: this process has the lock for as long as it lives."""

    def publish(self, replaces: bool) -> None:
        """Move the complete store to its path.

        Raises:
            UserError: something else is there by now; the draft stays, and can be resumed.
        """
        check_replaceable(self._asked, "store", foreign_to_store, replaces)
        if self.path.exists():
            os.replace(self.path, self.folder / "replaced")
        os.replace(self.folder / self.path.name, self.path)
        sync_folder(self.path.parent)
        self.clear()


def _of_part(name: str) -> str:
    """What a part's name in a file means: part 2/3 of this store."""
    return f"part {name.removeprefix('lock.').replace('-of-', '/')} of this store"


def _just_finished(folder: Path) -> StoreError:
    return StoreError(f"{folder}: another process has just finished this store; run the command again")


@contextmanager
def _held(lock: Path, what: str = "this store") -> Iterator[None]:
    busy = f"{lock.parent}: another process is writing {what}; wait for it, or stop it"
    try:
        file = acquire(lock, busy, InUseError)
    except FileNotFoundError as error:
        raise _just_finished(lock.parent) from error
    try:
        yield
    finally:
        release(file)
