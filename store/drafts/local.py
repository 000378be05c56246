"""A store that is not complete yet, on a local disk.

`feats.zarr.unfinished` holds the store to be under its own name, `begun.json` (what it is to be),
`commits.jsonl` (what lies on the disk), `lock`, and at the end `replaced`, the store that was there before.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from store.containers.detect import Container, container, foreign_to_store
from store.drafts.journal import CommitLog
from store.errors import StoreError
from store.layout import ArrayLayout
from store.spec import parse_begun
from store.storage.atomic import UNFINISHED, check_replaceable, foreign_names, sync_folder, write_json
from store.storage.location import unfinished_place
from store.storage.lock import acquire, release


class LocalDraft:
    """`S3Draft` offers the same for a bucket.

    Attributes:
        path: where the store is to lie; a link is followed.
        folder: where it is written until it is complete.
    """

    def __init__(self, path: Path):
        self.path = Path(os.path.realpath(path))
        self.folder = unfinished_place(self.path)
        self._asked = path

    def __str__(self) -> str:
        return str(self.folder)

    def begun(self) -> dict[str, Any] | None:
        """What was begun, None where nothing was or its beginning was cut short."""
        try:
            return parse_begun((self.folder / "begun.json").read_bytes(), self)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def begin(self, begun: dict[str, Any]) -> None:
        """Note what is begun; from then on it can be gone on with."""
        write_json(self.folder / "begun.json", begun)
        sync_folder(self.folder)
        sync_folder(self.folder.parent)

    def is_published(self) -> bool:
        """Whether the path holds a published store, which no draft has moved aside or still assembles."""
        parts = self.folder / f"{self.path.name}.parts"
        return self.path.exists() and not (self.folder / self.path.name).exists() and not parts.exists()

    def check_vacant(self, may_replace: bool) -> None:
        """Raise UserError where something else lies under the store's name, or under the draft's."""
        if self.path.is_symlink() or os.path.ismount(self.path):
            what = "a link that leads to itself" if self.path.is_symlink() else "where a disk is mounted"
            raise StoreError(f"{self._asked}: is {what}, and cannot become a store; name another path")
        check_replaceable(self._asked, "store", foreign_to_store, may_replace)
        self._check_ours()

    def _check_ours(self) -> None:
        if not self.folder.exists():
            return
        cut_short = (file.name for file in self.folder.glob(f".*{UNFINISHED}*"))
        name = self.path.name
        trees = (name, f"{name}.parts", f"{name}.assembling")
        ours = ("begun.json", "commits.jsonl", "lock", "replaced", *trees)
        if found := foreign_names(self.folder, (*ours, *cut_short)):
            raise StoreError(f"{self.folder}: is in the way of the store (it {found}); move it elsewhere")

    def check_free(self) -> None:
        """Raise StoreError if another process holds the lock."""
        if (self.folder / "lock").exists():
            with _held(self.folder / "lock"):
                pass

    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        """Make the folder, if need be, and hold its lock.

        Where nothing is begun at the end, the folder goes, its lock last: until then nobody else can take it
        for theirs.

        Raises:
            StoreError: another process holds the lock, or the folder is somebody else's.
        """
        self._check_ours()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.folder}: cannot be made ({error.strerror}); name a place that may be written"
            ) from error
        with _held(self.folder / "lock"):
            try:
                yield
            finally:
                if not (self.folder / "begun.json").exists():
                    self.leave()
                    (self.folder / "lock").unlink()
                    with suppress(OSError):  # somebody else may have begun in it by now
                        self.folder.rmdir()

    def container(self, layouts: dict[str, ArrayLayout], state: dict[str, Any]) -> Container:
        """The writer of the store to be."""
        return container(self.folder / self.path.name, layouts, state)

    def log(self) -> CommitLog:
        """The records of what lies on the disk."""
        return CommitLog(self.folder / "commits.jsonl")

    def tidy(self) -> None:
        """Remove the files that a kill left under their names of passage."""
        for file in self.folder.rglob(f".*{UNFINISHED}*"):
            file.unlink()

    def remains(self) -> bool:
        """Whether anything of the draft is there."""
        return self.folder.exists()

    def discard(self) -> None:
        """Remove what an earlier attempt wrote; a store that it had moved aside comes back."""
        replaced = self.folder / "replaced"
        if replaced.exists() and not self.path.exists():  # killed between two renames
            os.replace(replaced, self.path)
        self.leave()

    def leave(self) -> None:
        """Remove the draft, but for the lock, which is held.

        `begun.json` goes first: a kill on the way must not leave what looks like something to go on with.
        """
        self._check_ours()
        (self.folder / "begun.json").unlink(missing_ok=True)
        for entry in self.folder.iterdir():
            if entry.name != "lock":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def prove(self) -> None:
        """Nothing: as long as this process lives, the lock is its own."""

    def publish(self, replaces: bool) -> None:
        """Give the complete store its name.

        Raises:
            UserError: something came to lie there meanwhile; the draft stays, to be gone on with.
        """
        check_replaceable(self._asked, "store", foreign_to_store, replaces)
        if self.path.exists():
            os.replace(self.path, self.folder / "replaced")
        os.replace(self.folder / self.path.name, self.path)
        sync_folder(self.path.parent)
        self.leave()


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    busy = f"{lock.parent}: another process is writing this store; wait for it, or stop it"
    try:
        file = acquire(lock, busy, StoreError)
    except FileNotFoundError as error:
        raise StoreError(
            f"{lock.parent}: another process has just finished this store; run it again"
        ) from error
    try:
        yield
    finally:
        release(file)
