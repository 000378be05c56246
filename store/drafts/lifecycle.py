"""What may be written where: what lies there, and what an interrupted writer left."""

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


def draft_of(where: Path | Bucket) -> Draft:
    """The draft of the store that lies, or is to lie, somewhere."""
    return S3Draft(where) if isinstance(where, Bucket) else LocalDraft(where)


def unfinished_folder(path: Path) -> Path:
    """Where a store on a local disk is written until it is complete."""
    return LocalDraft(path).folder


def check_writable(where: Path | Bucket, resume: bool, overwrite: bool) -> None:
    """Raise what `opened_draft` would for what lies somewhere, before anything is computed.

    Raises:
        StoreError: something is in the way, or an extraction was begun and is neither resumed nor replaced.
    """
    check_suffix(where)
    draft = draft_of(where)
    begun = _begun_of(draft, overwrite)
    if begun is not None and not (resume or overwrite):
        draft.check_free()
    _check_place(draft, begun, resume, overwrite)


def _check_place(draft: Draft, begun: dict[str, Any] | None, resume: bool, overwrite: bool) -> None:
    if begun is not None and not (resume or overwrite):  # first: --overwrite would throw away what there is
        raise StoreError(
            f"{draft}: this store was begun; pass --resume to go on, or --overwrite to begin anew"
        )
    may_stay = resume and (_replaces_store(begun) or draft.is_published())
    draft.check_vacant(overwrite or may_stay)


def _begun_of(draft: Draft, overwrite: bool) -> dict[str, Any] | None:
    """What was begun; nothing, if it is damaged and to be replaced."""
    try:
        return draft.begun()
    except StoreError:
        if not overwrite:
            raise
        return None


def is_finished(where: Path | Bucket, plan: StoreSpec, overwrite: bool) -> bool:
    """Whether there is nothing to resume, since the store that the plan describes is complete already.

    Raises:
        StoreError: a store is complete there, and is another that may not be replaced.
    """
    draft = draft_of(where)
    if not _is_whole(where, draft, plan, overwrite):
        return False
    if draft.remains():  # killed between completion and tidying up
        with draft.sole_writer():
            draft.leave()
    return True


def _is_whole(where: Path | Bucket, draft: Draft, plan: StoreSpec, overwrite: bool) -> bool:
    if not draft.is_published():
        return False
    attributes, _ = open_container(where)
    if attributes.get("complete") is not True:
        return False
    provenance = attributes.get("provenance")
    made = provenance.get("identity") if isinstance(provenance, dict) else None
    made = made if isinstance(made, dict) else {}
    found = differing(plan.identity, made)
    if found is not None and not overwrite:
        raise _other_store(where, *found)
    return found is None


@contextmanager
def opened_draft(
    where: Path | Bucket, spec: StoreSpec, resume: bool, overwrite: bool
) -> Iterator[tuple[Draft, dict[str, Any] | None, bool]]:
    """Hold the lock of a draft, with all that is in the way refused and what is not wanted gone.

    What `check_writable` saw before is looked at again: another process may have finished meanwhile.

    Yields:
        The draft; what was begun and is to be gone on with, None for a beginning anew; and whether the store
        may replace another.

    Raises:
        StoreError: something is in the way, another process writes it, or what was begun is another store.
    """
    check_suffix(where)
    draft = draft_of(where)
    with draft.sole_writer():
        begun = _begun_of(draft, overwrite)
        _check_place(draft, begun, resume, overwrite)
        if resume and _is_whole(where, draft, spec, overwrite):
            raise StoreError(f"{where}: another process has just finished this store; run it again")
        replaces = overwrite or _replaces_store(begun)
        if begun is not None and resume:
            _check_same(draft, begun, spec)
        else:
            draft.discard()
            begun = None
        yield draft, begun, replaces


def _replaces_store(begun: dict[str, Any] | None) -> bool:
    """Whether what was begun is to replace another store."""
    return begun is not None and begun["replaces"]


def _check_same(draft: Draft, begun: dict[str, Any], plan: StoreSpec) -> None:
    """Raise StoreError where what was begun is another store than the plan's."""
    found = differing(plan.identity, begun["identity"])
    if found is None:
        layouts = {f"layout of {path}": layout for path, layout in begun["layouts"].items()}
        plan = plan.as_begun(begun)
        asked = {f"layout of {path}": layout for path, layout in plan.layouts_as_json.items()}
        found = differing(asked, layouts)
    if found is not None:
        raise _other_store(draft, *found)


def _other_store(where: Any, name: str, was: Any, now: Any) -> StoreError:
    return StoreError(
        f"{where}: was begun with another {name} ({was}) than asked for now ({now}); ask for the same, "
        "or pass --overwrite to begin anew"
    )
