"""A store that is not complete yet, in a bucket.

An object appears whole or not at all, and cannot be renamed: so the store is written where it is to lie, and
nobody takes it for complete until its root, written last, says so. `feats.zarr.unfinished` holds
`begun.json`, a record for each block that is written, and the lock.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from store.containers.detect import foreign_files
from store.containers.zarr_v3 import ROOT, ZarrContainer
from store.drafts.journal import Commit, record, recorded
from store.drafts.s3_lock import S3Lock
from store.errors import UserError
from store.layout import ArrayLayout
from store.schema import FORMAT
from store.spec import parse_begun
from store.storage.location import unfinished_place
from store.storage.s3 import Bucket

BEGUN = "begun.json"
COMMITS = "commits/"


class S3Draft:
    """`LocalDraft` says what each method does.

    Attributes:
        place: where the store lies.
    """

    def __init__(self, place: Bucket):
        self.place = place
        self._side = unfinished_place(place)
        self._lock = S3Lock(self._side)

    def __str__(self) -> str:
        return str(self._side)

    def begun(self) -> dict[str, Any] | None:
        """What was begun, None where nothing was or its beginning was cut short."""
        try:
            return parse_begun(self._side.read(BEGUN), self)
        except FileNotFoundError:
            return None

    def begin(self, begun: dict[str, Any]) -> None:
        """Note what is begun; from then on it can be gone on with."""
        self._side.write(BEGUN, [json.dumps(begun).encode()])

    def is_published(self) -> bool:
        """Whether the store is complete."""
        return self._root().get("complete") is True

    def check_vacant(self, may_replace: bool) -> None:
        """Raise UserError where something else lies under the store's name."""
        names = self.place.sizes()
        if not names:
            return
        root = self._root()
        found = foreign_files(names)
        if found or root.get("format") != FORMAT:
            raise UserError(
                f"{self.place}: already exists and is no store alone (it {found or f'holds {min(names)}'}); "
                "name another place"
            )
        if root.get("complete") is True and not may_replace:
            raise UserError(
                f"{self.place}: already exists; pass --overwrite to replace this store, or name another"
            )

    def check_free(self) -> None:
        """Nothing: who holds the lock shows only with time."""

    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        """Hold the lock of the draft."""
        with self._lock.held():
            yield

    def container(self, layouts: dict[str, ArrayLayout], state: dict[str, Any]) -> ZarrContainer:
        """The writer of the store to be."""
        return ZarrContainer(self.place, layouts, state)

    def log(self) -> "S3CommitLog":
        """The records of what is written."""
        return S3CommitLog(self._side, self._lock)

    def tidy(self) -> None:
        """Nothing: a killed upload leaves no object."""

    def remains(self) -> bool:
        """Whether anything of the draft is there."""
        return bool(self._side.sizes())

    def discard(self) -> None:
        """Remove draft and store; the root last, by which they are known. What is another's by now stays."""
        if self._lock.is_lost:
            return
        names = set(self.place.sizes())
        if self.is_published():
            content = json.loads(self.place.read(ROOT))
            content["attributes"]["complete"] = False
            self.place.write(ROOT, [json.dumps(content).encode()])
        self.leave()
        self.place.delete(names - {ROOT})
        self.place.delete(names & {ROOT})

    def prove(self) -> None:
        """Raise StoreError unless this process may still write."""
        self._lock.prove()

    def publish(self, replaces: bool) -> None:
        """Remove the draft: the store says by itself that it is complete."""
        self._lock.check_held()
        self.leave()

    def leave(self) -> None:
        """Remove the draft, but for the lock, which is held; records first: none may outlive begun.json."""
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
    """The records of one draft, an object each."""

    def __init__(self, side: Bucket, lock: S3Lock):
        self._side, self._lock = side, lock
        names = [name for name in side.sizes() if name.startswith(COMMITS)]
        found = map(recorded, side.read_all(names).values())
        self.commits: list[Commit] = [commit for commit in found if commit is not None]

    def append(self, commit: Commit) -> None:
        """Record that a block is written."""
        self._lock.check_held()
        self._side.write(f"{COMMITS}{commit.group}.{commit.block}", [record(commit)])
        self.commits.append(commit)
