"""A store that is not complete yet, on a local disk.

`feats.zarr.unfinished` holds the store to be under its own name, `begun.json` (what it is to be),
`commits.jsonl` (what lies on the disk), `lock`, and at the end `replaced`, the store that was there before.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.atomic import UNFINISHED, foreign_names, refuse_existing, sync_folder, write_json
from store.commits import CommitLog
from store.container import Container, container, foreign_to_store
from store.errors import StoreError
from store.layout import ArrayLayout


class LocalDraft:
    """`S3Draft` offers the same for a bucket.

    Attributes:
        path: where the store is to lie; a link is followed.
        folder: where it is written until it is complete.
    """

    def __init__(self, path: Path):
        self.path = Path(os.path.realpath(path))
        self.folder = self.path.with_name(f"{self.path.name}.unfinished")
        self._asked = path

    def __str__(self) -> str:
        return str(self.folder)

    def begun(self) -> dict[str, Any] | None:
        """What was begun, None where nothing was or its beginning was cut short."""
        try:
            return json.loads((self.folder / "begun.json").read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise StoreError(
                f"{self.folder}: begun.json is damaged; pass --overwrite to begin anew"
            ) from error

    def begin(self, begun: dict[str, Any]) -> None:
        """Note what is begun; from then on it can be gone on with."""
        write_json(self.folder / "begun.json", begun)

    def is_published(self) -> bool:
        """Whether what lies under the store's name is no longer, or not yet again, a draft's."""
        parts = self.folder / f"{self.path.name}.parts"
        return self.path.exists() and not (self.folder / self.path.name).exists() and not parts.exists()

    def refuse_occupied(self, may_replace: bool) -> None:
        """Raise UserError where something else lies under the store's name, or under the draft's."""
        refuse_existing(self._asked, "store", foreign_to_store, may_replace)
        if not self.folder.exists():
            return
        cut_short = (file.name for file in self.folder.glob(f".*{UNFINISHED}*"))
        name = self.path.name
        ours = (
            "begun.json",
            "commits.jsonl",
            "lock",
            "replaced",
            name,
            f"{name}.parts",
            f"{name}.assembling",
        )
        if found := foreign_names(self.folder, (*ours, *cut_short)):
            raise StoreError(f"{self.folder}: is in the way of the store (it {found}); move it elsewhere")

    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        """Hold the lock of the draft.

        Raises:
            StoreError: another process holds it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.folder}: cannot be made ({error.strerror}); name a place that may be written"
            ) from error
        lock = self.folder / "lock"
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StoreError(
                    f"{self.folder}: another process is writing this store; wait for it, or stop it"
                ) from error
            if not lock.exists() or os.fstat(file.fileno()).st_ino != lock.stat().st_ino:
                raise just_finished(self)
            try:
                yield
            finally:
                if self.folder.exists() and os.listdir(self.folder) == ["lock"]:
                    shutil.rmtree(self.folder)

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
        """Remove what an earlier attempt wrote."""
        self.leave()

    def leave(self) -> None:
        """Remove the draft, but for the lock, which is held."""
        for entry in self.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()

    def publish(self) -> None:
        """Give the complete store its name."""
        if self.path.exists():
            os.replace(self.path, self.folder / "replaced")
        os.replace(self.folder / self.path.name, self.path)
        sync_folder(self.path.parent)
        self.leave()


def just_finished(draft: Any) -> StoreError:
    """What a process is told that came while another one finished the store."""
    return StoreError(f"{draft}: another process has just finished this store; run it again")
