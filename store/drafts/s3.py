"""The draft of a store in a bucket.

An object appears whole or not at all, and cannot be renamed. So the store is written in its final place, and
counts as complete once its root, written last, says so. `feats.zarr.unfinished` holds `begun.json`, a record
for each written block, and the lock.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from store.containers.detect import foreign_files
from store.containers.zarr_v3 import ROOT, ZarrContainer
from store.drafts.journal import Commit, record, recorded
from store.drafts.s3_lock import S3Lock
from store.errors import InUseError, UserError
from store.layout import ArrayLayout
from store.schema import FORMAT
from store.spec import parse_begun
from store.storage.location import draft_place
from store.storage.s3 import Bucket

BEGUN = "begun.json"
COMMITS = "commits/"
TURN = "lock.begin.json"
OF_PARTS = "lock.part."  # then 2-of-3.json


class S3Draft:
    """The draft of one store. `LocalDraft` documents the methods.

    Attributes:
        place: where the store is.
    """

    def __init__(self, place: Bucket):
        self.place = place
        self._side = draft_place(place)
        self._lock = S3Lock(self._side)

    def __str__(self) -> str:
        return str(self._side)

    def begun(self) -> dict[str, Any] | None:
        """The content of begun.json; None if there is no draft."""
        try:
            return parse_begun(self._side.read(BEGUN), self)
        except FileNotFoundError:
            return None

    def begin(self, begun: dict[str, Any]) -> None:
        """Write begun.json; from then on the draft can be resumed."""
        self._side.write(BEGUN, [json.dumps(begun).encode()])

    def is_published(self) -> bool:
        """Whether the store is complete."""
        return self._root().get("complete") is True

    def check_vacant(self, may_replace: bool) -> None:
        """Raise UserError if something else is at the store's place."""
        names = self.place.sizes()
        if not names:
            return
        root = self._root()
        found = foreign_files(names)
        if found or root.get("format") != FORMAT:
            found = found or f"holds {min(names)}"
            raise UserError(
                f"{self.place}: already exists and is not a store that may be replaced (it {found}); "
                "name another place"
            )
        if root.get("complete") is True and not may_replace:
            raise UserError(
                f"{self.place}: already exists; pass --overwrite to replace this store, or name another"
            )

    def check_free(self) -> None:
        """Nothing: whether the holder of the lock is alive shows only after a while."""

    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        """Hold the lock of the draft and those of all parts."""
        with self._lock.held(), ExitStack() as of_parts:
            for name in sorted(name for name in self._side.sizes() if name.startswith(OF_PARTS)):
                of_parts.enter_context(S3Lock(self._side, name).held())
            yield

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Hold the lock, but of no part, and wait for other parts that begin or end."""
        with self.waiting(), self._lock.held():
            yield

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for other processes that begin parts, or complete a store of parts, and make them wait."""
        with ExitStack() as held:
            while True:
                with suppress(InUseError):  # found out by watching the lock, or by losing a race for it
                    held.enter_context(S3Lock(self._side, TURN).held())
                    break
            yield

    @contextmanager
    def part_writer(self, part: str) -> Iterator[None]:
        """Hold the lock of one part, which is the one that counts from now on."""
        self._lock = S3Lock(self._side, f"{OF_PARTS}{part}.json")
        with self._lock.held():
            yield

    def part_log(self, part: str) -> "S3CommitLog":
        """The log, which all parts share: each record is an object."""
        return self.log()

    def container(self, layouts: dict[str, ArrayLayout], state: dict[str, Any]) -> ZarrContainer:
        """The writer of the store's container."""
        return ZarrContainer(self.place, layouts, state)

    def log(self) -> "S3CommitLog":
        """The log of the blocks that are written."""
        return S3CommitLog(self._side, self._lock)

    def tidy(self) -> None:
        """Nothing: a killed upload leaves no object."""

    def remains(self) -> bool:
        """Whether any part of the draft exists."""
        return bool(self._side.sizes())

    def discard(self) -> None:
        """Remove draft and store, the root last, since it identifies them; nothing if the lock is lost."""
        if self._lock.is_lost:
            return
        names = set(self.place.sizes())
        if self.is_published():
            content = json.loads(self.place.read(ROOT))
            content["attributes"]["complete"] = False
            self.place.write(ROOT, [json.dumps(content).encode()])
        self.clear()
        self.place.delete(names - {ROOT})
        self.place.delete(names & {ROOT})

    def confirm_lock(self) -> None:
        """Raise StoreError unless this process may still write."""
        self._lock.confirm()

    def publish(self, replaces: bool) -> None:
        """Remove the draft: the store's root already says that it is complete."""
        self._lock.check_held()
        self.clear()

    def clear(self) -> None:
        """Remove all of the draft but the lock, the records first: none may outlive begun.json."""
        names = self._side.sizes()
        self._side.delete(name for name in names if name.startswith(COMMITS))
        self._side.delete([BEGUN])

    def _root(self) -> dict[str, Any]:
        try:
            attributes = json.loads(self.place.read(ROOT))["attributes"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}
        return attributes if isinstance(attributes, dict) else {}


class S3CommitLog:
    """The log of one draft, one object a record."""

    def __init__(self, side: Bucket, lock: S3Lock):
        self._side, self._lock = side, lock
        names = [name for name in side.sizes() if name.startswith(COMMITS)]
        found = map(recorded, side.read_all(names).values())
        self.commits: list[Commit] = [commit for commit in found if commit is not None]

    def append(self, commit: Commit) -> None:
        """Record that a block is in the bucket."""
        self._lock.check_held()
        self._side.write(f"{COMMITS}{commit.group}.{commit.block}", [record(commit)])
        self.commits.append(commit)
