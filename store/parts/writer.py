"""Writing one part of a store: its own blocks, in a draft that all parts share.

Each part has a lock and a record of its own. All begin one after the other: the first makes the draft, and
the others compare their options with it. `join` completes it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from store.containers.detect import Container
from store.drafts.journal import CommitLog
from store.drafts.lifecycle import Draft, check_same, draft_of
from store.drafts.s3 import S3CommitLog
from store.errors import Interrupted, StoreError
from store.layout import ArrayLayout
from store.parts.part import Part
from store.parts.share import owners, rows_of
from store.spec import StoreSpec
from store.storage.location import check_suffix
from store.storage.s3 import Bucket
from store.writer import KNOWN, StoreWriter


def check_part_writable(where: Path | Bucket, part: Part, resume: bool, overwrite: bool = False) -> None:
    """Raise StoreError for what `write_part` would refuse, as far as it is known without options."""
    check_suffix(where)
    draft = draft_of(where)
    begun = None if overwrite else draft.begun()
    published = draft.is_published()
    draft.check_vacant(may_replace=overwrite or published or (begun is not None and begun["replaces"]))
    if published and not (resume or overwrite):
        raise StoreError(f"{where}: already exists; {_start_over(where)}, or name another store")
    if published or begun is None or begun.get("parts") == part.count:
        return
    was = f"in {begun['parts']} parts" if "parts" in begun else "as a whole"
    raise StoreError(
        f"{draft}: was started {was}, and not in {part.count} parts as now (--part {part}); use the same, or "
        f"{_start_over(where)}"
    )


def check_not_begun(where: Path | Bucket) -> None:
    """Raise StoreError if there is a draft, for processes that all begin together."""
    draft = draft_of(where)
    if draft.begun() is not None:
        raise StoreError(
            f"{draft}: is an unfinished store; pass --resume to continue it, or --overwrite to start over"
        )


def _start_over(where: Path | Bucket) -> str:
    return f"delete {where} and {where}.unfinished to start over"


@contextmanager
def write_part(
    where: Path | Bucket, spec: StoreSpec, part: Part, resume: bool, overwrite: bool = False
) -> Iterator["PartWriter"]:
    """Start or resume a part of a store; committed blocks stay if the `with` block raises.

    Args:
        where: the store.
        spec: of the whole store.
        part: which part of it.
        resume: whether the part may have been begun.
        overwrite: whether to start over: for the first part to begin, of those that run now.

    Raises:
        StoreError: something is in the way, another process writes this part or the whole store, or the
            draft is of other options.
        Interrupted: Ctrl-C, once there is something to resume.
    """
    draft, writer = draft_of(where), None
    if overwrite:
        with draft_of(where).sole_writer():
            draft_of(where).discard()
    try:
        with ExitStack() as held:
            with draft.beginning():
                check_part_writable(where, part, False, overwrite)  # again: it may have been finished
                begun = _begun(draft, where, spec)
                held.enter_context(draft.part_writer(part.name))
                own = spec if begun is None else spec.as_begun(begun)
                _check_not_begun(draft, own, part, resume)
                writer = PartWriter(where, PartDraft(draft, part), own, begun, overwrite, part)
            yield writer
    except BaseException as error:
        kept = writer is not None and writer.stopped().has_rows
        if writer is not None and not kept:
            _discard_if_empty(where)
        raise (Interrupted() if kept and type(error) is KeyboardInterrupt else error) from error
    writer.stopped()


def _begun(draft: Draft, where: Path | Bucket, spec: StoreSpec) -> dict[str, Any] | None:
    """The begun.json of these options; None if there is none, once what is left of a beginning is removed."""
    begun = draft.begun()
    if begun is None:
        draft.discard()
    else:
        check_same(draft, begun, spec, _start_over(where))
    return begun


def _check_not_begun(draft: Draft, spec: StoreSpec, part: Part, resume: bool) -> None:
    """Raise StoreError if a part that is not resumed has blocks on disk."""
    dealt = owners(spec.layouts, part.count)
    recorded = draft.part_log(part.name).commits
    if not resume and any(dealt.get((commit.group, commit.block)) == part.number for commit in recorded):
        raise StoreError(f"{draft}: part {part} was begun already; pass --resume to continue it")


def _discard_if_empty(where: Path | Bucket) -> None:
    """Remove a draft in which no part has rows and that no part is writing."""
    draft = draft_of(where)
    with suppress(StoreError), draft.sole_writer():
        if all(commit.group == KNOWN for commit in draft.log().commits):
            draft.discard()


class PartDraft:
    """A draft as one part sees it: with its own record, and without what other parts may be writing."""

    def __init__(self, draft: Draft, part: Part):
        self._draft, self._part = draft, part

    def __str__(self) -> str:
        return str(self._draft)

    def begin(self, begun: dict[str, Any]) -> None:
        """Write begun.json with the number of parts."""
        self._draft.begin(begun | {"parts": self._part.count})

    def container(self, layouts: dict[str, ArrayLayout], state: dict[str, Any]) -> Container:
        """The writer of the draft's container."""
        return self._draft.container(layouts, state)

    def log(self) -> CommitLog | S3CommitLog:
        """The part's own record."""
        return self._draft.part_log(self._part.name)

    def tidy(self) -> None:
        """Nothing: temporary files may be those of another part."""


class PartWriter(StoreWriter):
    """Fills one part of a store; `write_part` makes it.

    Attributes:
        part: which.
        n_blocks, n_rows: its blocks and those of the whole store; its rows and those of the whole store.
        completed: whether this process has completed the whole store, once it has ended.
    """

    def __init__(
        self,
        where: Path | Bucket,
        draft: PartDraft,
        spec: StoreSpec,
        begun: dict[str, Any] | None,
        replaces: bool,
        part: Part,
    ):
        self.part, self.completed = part, False
        dealt = owners(spec.layouts, part.count)
        self._own = {block for block, number in dealt.items() if number == part.number}
        super().__init__(where, draft, spec, begun, replaces)
        rows = {block: rows_of(block, spec.layouts) for block in dealt if block[0] != KNOWN}
        own = [n for block, n in rows.items() if block in self._own]
        self.n_blocks, self.n_rows = (len(own), len(rows)), (sum(own), sum(rows.values()))

    @property
    def has_rows(self) -> bool:
        """Whether a block of this part that the network filled was committed."""
        found = {(commit.group, commit.block) for commit in self._log.commits if commit.group != KNOWN}
        return bool(found & self._own)

    def write_known(self, arrays: dict[str, np.ndarray]) -> None:
        """Write the arrays known beforehand, if they are this part's."""
        if (KNOWN, 0) in self._own:
            super().write_known(arrays)

    def missing(self, split: str) -> list[tuple[int, int]]:
        """First row, and the row after the last one, of every missing block of this part."""
        layout = self._spec.layouts[f"{split}/pooled"]
        left = self._own - self._committed
        return [layout.block(i) for i in range(layout.n_blocks) if (split, i) in left]

    def finish(self) -> None:
        """Wait until the part is on disk; `join` completes the store."""
        self._wait(0)
