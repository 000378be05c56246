"""Where a store may be written, given what is there and what an interrupted writer left."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.containers.detect import open_container
from store.drafts.local import LocalDraft
from store.drafts.s3 import S3Draft
from store.errors import StoreError
from store.spec import StoreSpec, differing
from store.storage.location import check_suffix
from store.storage.s3 import Bucket

Draft = LocalDraft | S3Draft
START_OVER = "pass --overwrite to start over"


def draft_of(where: Path | Bucket) -> Draft:
    """The draft of the store at a place; neither needs to exist."""
    return S3Draft(where) if isinstance(where, Bucket) else LocalDraft(where)


def draft_folder(path: Path) -> Path:
    """The draft's folder, for a store on a local disk."""
    return LocalDraft(path).folder


def check_writable(where: Path | Bucket, resume: bool, overwrite: bool) -> None:
    """Raise what `opened_draft` would, before anything is computed.

    Raises:
        StoreError: something is in the way, or there is a draft that is neither resumed nor replaced.
    """
    check_suffix(where)
    draft = draft_of(where)
    begun = _begun_of(draft, overwrite)
    if begun is not None and not (resume or overwrite):
        draft.check_free()
    _check_place(draft, begun, resume, overwrite)


def _check_place(draft: Draft, begun: dict[str, Any] | None, resume: bool, overwrite: bool) -> None:
    if begun is not None and "parts" in begun and not overwrite:
        raise StoreError(
            f"{draft}: was started in {begun['parts']} parts (--part, or torchrun); continue with these, or "
            f"{START_OVER}"
        )
    if begun is not None and not (
        resume or overwrite
    ):  # first: the other errors advise --overwrite, which would lose the draft
        raise StoreError(
            f"{draft}: is an unfinished store; pass --resume to continue it, or --overwrite to start over"
        )
    may_stay = resume and (_replaces_store(begun) or draft.is_published())
    draft.check_vacant(overwrite or may_stay)


def _begun_of(draft: Draft, overwrite: bool) -> dict[str, Any] | None:
    """The draft's begun.json; None if it is damaged and will be replaced."""
    try:
        return draft.begun()
    except StoreError:
        if not overwrite:
            raise
        return None


def is_finished(where: Path | Bucket, spec: StoreSpec, overwrite: bool) -> bool:
    """Whether there is nothing to resume, because the store that `spec` describes is complete.

    Raises:
        StoreError: another complete store is there, which may not be replaced.
    """
    draft = draft_of(where)
    if not _is_whole(where, draft, spec, overwrite):
        return False
    if draft.remains():  # killed after completion, before tidying up
        with draft.sole_writer():
            draft.clear()
    return True


def _is_whole(where: Path | Bucket, draft: Draft, spec: StoreSpec, overwrite: bool) -> bool:
    if not draft.is_published():
        return False
    attributes, _ = open_container(where)
    if attributes.get("complete") is not True:
        return False
    provenance = attributes.get("provenance")
    made = provenance.get("identity") if isinstance(provenance, dict) else None
    made = made if isinstance(made, dict) else {}
    found = differing(spec.identity, made)
    if found is not None and not overwrite:
        raise _other_store(where, *found)
    return found is None


@contextmanager
def opened_draft(
    where: Path | Bucket, spec: StoreSpec, resume: bool, overwrite: bool
) -> Iterator[tuple[Draft, dict[str, Any] | None, bool]]:
    """Hold the lock of a draft, after checking that nothing is in the way and removing an unwanted draft.

    Everything is checked again under the lock: another process may have finished since `check_writable`.

    Yields:
        The draft; the begun.json to resume, or None to start over; and whether the store may replace another.

    Raises:
        StoreError: something is in the way, another process writes the store, or the draft is another
            store's.
    """
    check_suffix(where)
    draft = draft_of(where)
    with draft.sole_writer():
        begun = _begun_of(draft, overwrite)
        _check_place(draft, begun, resume, overwrite)
        if resume and _is_whole(where, draft, spec, overwrite):
            raise StoreError(f"{where}: another process has just finished this store; run the command again")
        replaces = overwrite or _replaces_store(begun)
        if begun is not None and resume:
            check_same(draft, begun, spec)
        else:
            draft.discard()
            begun = None
        yield draft, begun, replaces


def _replaces_store(begun: dict[str, Any] | None) -> bool:
    """Whether the draft will replace another store."""
    return begun is not None and begun["replaces"]


def check_same(draft: Draft, begun: dict[str, Any], spec: StoreSpec, advice: str = START_OVER) -> None:
    """Raise StoreError if the draft is of another store than `spec`; `advice` tells how to start over."""
    found = differing(spec.identity, begun["identity"])
    if found is None:
        layouts = {f"layout of {path}": layout for path, layout in begun["layouts"].items()}
        spec = spec.as_begun(begun)
        asked = {f"layout of {path}": layout for path, layout in spec.layouts_as_json.items()}
        found = differing(asked, layouts)
    if found is not None:
        raise _other_store(draft, *found, advice)


def _other_store(where: Any, name: str, was: Any, now: Any, advice: str = START_OVER) -> StoreError:
    return StoreError(
        f"{where}: was started with another {name} ({was}) than now ({now}); use the same, or {advice}"
    )
