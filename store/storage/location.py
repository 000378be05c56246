"""Where a store is, as the user names it: a path, or an address in a bucket."""

import json
import os
import re
from pathlib import Path

from store.errors import StoreError
from store.storage.s3 import Bucket

SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):/", re.IGNORECASE)
SUFFIXES = (".zarr", ".h5")
DRAFT = ".unfinished"  # after the store's name, until the store is complete
EXPECTED = "expected a path, or s3://bucket/name.zarr"


def draft_place(where: Path | Bucket) -> Path | Bucket:
    """The place of a store's draft: beside the store."""
    return where.beside(DRAFT) if isinstance(where, Bucket) else where.with_name(where.name + DRAFT)


def locate(text: str) -> Path | Bucket:
    """The place that a text names; no two texts name the same place in a bucket.

    Raises:
        StoreError: an address that is not s3://bucket/name, or that can be read in two ways.
    """
    scheme = SCHEME.match(text)
    if scheme is None:
        return Path(text)
    bucket, _, name = text[scheme.end() + 1 :].rstrip("/").partition("/")
    if scheme[1].lower() != "s3" or text[scheme.end() :][:1] != "/" or not bucket or not name:
        raise StoreError(f"{text}: unknown address; {EXPECTED}")
    if {"", ".", ".."} & set(name.split("/")) or set("%#?\\") & set(name):
        raise StoreError(f"{text}: contains . or .. or an empty name, or one of % # ? \\; {EXPECTED}")
    return Bucket(f"s3://{bucket}/{name}")


def check_suffix(where: Path | Bucket) -> None:
    """Raise StoreError unless the name has the suffix of a container that can be written there."""
    if isinstance(where, Bucket) and where.suffix != ".zarr":
        raise StoreError(
            f"{where}: only zarr stores can be written to a bucket; expected a name that ends in .zarr"
        )
    if where.suffix not in SUFFIXES:
        raise StoreError(
            f"{where}: unknown container {where.suffix or '(no suffix)'!r}; expected a path ending in "
            f"{' or '.join(SUFFIXES)}"
        )


def check_exists(where: Path) -> None:
    """Raise StoreError if nothing is there."""
    if not where.exists():
        raise absent(where)


def absent(where: Path | Bucket) -> StoreError:
    """The error for a store that does not exist."""
    found = draft_advice(where) or f"no such store; `extract --store {where}` writes one"
    return StoreError(f"{where}: {found}")


def draft_advice(where: Path | Bucket) -> str | None:
    """How to finish the draft of a store; None if there is no draft."""
    draft = draft_place(Path(os.path.realpath(where)) if isinstance(where, Path) else where)
    try:
        begun = draft.read("begun.json") if isinstance(draft, Bucket) else (draft / "begun.json").read_bytes()
        begun = json.loads(begun)
        converted, parts = "converted" in begun["attributes"]["provenance"], begun.get("parts")
    except OSError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):  # damaged, as resuming it reports
        converted, parts = False, None
    if parts is not None:
        return (
            f"is not finished (its draft is {draft}); once its {parts} parts are written, run `store join "
            f"{where}`, which names those that are missing"
        )
    how = "`store convert`" if converted else "`extract`"
    return f"is not finished (its draft is {draft}); repeat the {how} command that started it with --resume"
