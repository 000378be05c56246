"""What may be written where: what lies there, and what an interrupted writer left."""

from pathlib import Path
from typing import Any, NoReturn

from store.containers.detect import open_container
from store.drafts.local import LocalDraft
from store.drafts.s3 import S3Draft
from store.errors import StoreError
from store.spec import StoreSpec, differing
from store.storage.location import refuse_other_suffix
from store.storage.s3 import Bucket

Draft = LocalDraft | S3Draft


def draft_of(where: Path | Bucket) -> Draft:
    """The draft of the store that lies, or is to lie, somewhere."""
    return S3Draft(where) if isinstance(where, Bucket) else LocalDraft(where)


def unfinished_folder(path: Path) -> Path:
    """Where a store on a local disk is written until it is complete."""
    return LocalDraft(path).folder


def check_writable(where: Path | Bucket, resume: bool, overwrite: bool) -> None:
    """Raise what `write_store` would for what lies somewhere, before anything is computed.

    Raises:
        StoreError: something is in the way, or an extraction was begun and is neither resumed nor replaced.
    """
    refuse_other_suffix(where)
    draft = draft_of(where)
    begun = begun_of(draft, overwrite)
    if begun is not None and not (resume or overwrite):  # first: --overwrite would throw away what there is
        draft.refuse_busy()
        raise StoreError(
            f"{draft}: this store was begun; pass --resume to go on, or --overwrite to begin anew"
        )
    may_stay = resume and (replaces_store(begun) or draft.is_published())
    draft.refuse_occupied(overwrite or may_stay)


def begun_of(draft: Draft, overwrite: bool) -> dict[str, Any] | None:
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
        _refuse(where, *found)
    return found is None


def take_over(
    where: Path | Bucket, draft: Draft, plan: StoreSpec, resume: bool, overwrite: bool
) -> dict[str, Any] | None:
    """What was begun and is to be gone on with, None for a beginning anew; whoever calls it holds the lock.

    What was seen before the lock was held is looked at again: another process may have finished meanwhile.
    """
    check_writable(where, resume, overwrite)
    if resume and _is_whole(where, draft, plan, overwrite):
        raise StoreError(f"{where}: another process has just finished this store; run it again")
    begun = begun_of(draft, overwrite)
    if begun is not None and resume:
        refuse_other(draft, begun, plan)
        return begun
    draft.discard()
    return None


def replaces_store(begun: dict[str, Any] | None) -> bool:
    """Whether what was begun is to replace another store."""
    return begun is not None and begun["replaces"]


def refuse_other(draft: Draft, begun: dict[str, Any], plan: StoreSpec) -> None:
    """Raise StoreError where what was begun is another store than the plan's."""
    found = differing(plan.identity, begun["identity"])
    if found is None:
        layouts = {f"layout of {path}": layout for path, layout in begun["layouts"].items()}
        plan = plan.as_begun(begun)
        asked = {f"layout of {path}": layout for path, layout in plan.layouts_as_json.items()}
        found = differing(asked, layouts)
    if found is not None:
        _refuse(draft, *found)


def _refuse(where: Any, name: str, was: Any, now: Any) -> NoReturn:
    raise StoreError(
        f"{where}: was begun with another {name} ({was}) than asked for now ({now}); ask for the same, "
        "or pass --overwrite to begin anew"
    )
