"""Completing a store whose parts are written."""

from pathlib import Path
from typing import Any

from store.drafts.lifecycle import draft_of
from store.errors import InUseError, StoreError
from store.layout import ArrayLayout
from store.parts.part import Part
from store.parts.share import Block, owners
from store.schema import LAYERS
from store.spec import StoreSpec
from store.storage.location import absent, check_suffix
from store.storage.s3 import Bucket
from store.writer import StoreWriter

NAMED = 20  # most missing parts named in a message


class MissingPartsError(StoreError):
    """Not all parts of a store are written."""


def join(where: Path | Bucket) -> int:
    """Complete a store, once every block of all parts is on disk.

    Returns:
        The number of its parts; 0 if it was complete before.

    Raises:
        MissingPartsError: parts are missing.
        InUseError: a part is being written.
        StoreError: the store was not begun in parts, or not at all.
    """
    check_suffix(where)
    draft = draft_of(where)
    if not (draft.remains() or draft.is_published()):
        raise absent(where)
    if not draft.remains():
        return 0
    with draft.sole_writer():
        begun = draft.begun()
        if draft.is_published():
            if begun is not None:  # killed after completion, before tidying up
                draft.clear()
            return 0
        if begun is None:
            raise absent(where)
        if "parts" not in begun:
            raise StoreError(
                f"{draft}: was not started in parts; repeat the command that started it with --resume"
            )
        spec = _spec_of(begun)
        _check_parts(where, spec, begun["parts"], {(of.group, of.block) for of in draft.log().commits})
        writer = JoinedWriter(where, draft, spec, begun, begun["replaces"])
        try:
            writer.finish()
        finally:
            writer.stopped()
        return begun["parts"]


def join_if_last(where: Path | Bucket) -> bool:
    """Complete a store if all parts are written, as each of torchrun's processes does at its end.

    They wait for each other here, so that the last one finds no part that is still being written.

    Returns:
        Whether this process completed it.
    """
    with draft_of(where).waiting():
        try:
            return join(where) > 0
        except (InUseError, MissingPartsError):
            return False


class JoinedWriter(StoreWriter):
    """Completes a store from the records of all its parts; `join` makes it."""

    def finish(self) -> None:
        """Add the time and the checksums, set `complete`, and publish the store.

        Raises:
            MissingPartsError: rows are missing that were recorded, after a power cut.
        """
        _check_parts(self._where, self._spec, self._begun["parts"], self._committed)
        super().finish()

    @property
    def _rerun(self) -> str:
        return "`store join` again"


def _check_parts(where: Path | Bucket, spec: StoreSpec, count: int, written: set[Block]) -> None:
    """Raise MissingPartsError, which names the parts, if not all blocks are written."""
    dealt = owners(spec.layouts, count)
    numbers = [number for block, number in dealt.items() if block not in written]
    if not numbers:
        return
    parts = [str(Part(number, count)) for number in sorted(set(numbers))]
    named = ", ".join(parts[:NAMED]) + (f" and {len(parts) - NAMED} more" if len(parts) > NAMED else "")
    what = "part" if len(parts) == 1 else "parts"
    raise MissingPartsError(
        f"{where}: {len(numbers)} of {len(dealt)} blocks are missing, of {what} {named}; run `extract` with "
        "--part and --resume for each of these, then join again"
    )


def _spec_of(begun: dict[str, Any]) -> StoreSpec:
    """The spec of the store that a begun.json describes."""
    attributes = begun["attributes"]
    layouts = {
        path: ArrayLayout(**layout | {"shape": tuple(layout["shape"])})
        for path, layout in begun["layouts"].items()
    }
    made = {name: value for name, value in attributes["provenance"].items() if name != "identity"}
    layers = attributes.get(LAYERS, {})
    names, identity = attributes["class_names"], begun["identity"]
    return StoreSpec(layouts, attributes["map_dtype"], names, made, identity, layers)
