"""Where a store lies, as a user names it: a path, or an address in a bucket."""

import json
import os
import re
from pathlib import Path

from store.errors import StoreError
from store.storage.s3 import Bucket

SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):/", re.IGNORECASE)
SUFFIXES = (".zarr", ".h5")
UNFINISHED = ".unfinished"  # after the store's name
EXPECTED = "expected a path, or s3://bucket/name.zarr"


def unfinished_place(where: Path | Bucket) -> Path | Bucket:
    """Where the draft of a store lies until the store is complete: beside it."""
    return where.beside(UNFINISHED) if isinstance(where, Bucket) else where.with_name(where.name + UNFINISHED)


def locate(text: str) -> Path | Bucket:
    """The place that a text names; two texts never name one place in a bucket.

    Raises:
        StoreError: an address of another kind than s3://bucket/name, or one that could be read in two ways.
    """
    scheme = SCHEME.match(text)
    if scheme is None:
        return Path(text)
    bucket, _, name = text[scheme.end() + 1 :].rstrip("/").partition("/")
    if scheme[1].lower() != "s3" or text[scheme.end() :][:1] != "/" or not bucket or not name:
        raise StoreError(f"{text}: unknown address; {EXPECTED}")
    if {"", ".", ".."} & set(name.split("/")) or set("%#?\\") & set(name):
        raise StoreError(f"{text}: holds . or .. or an empty name, or one of % # ? \\; {EXPECTED}")
    return Bucket(f"s3://{bucket}/{name}")


def check_suffix(where: Path | Bucket) -> None:
    """Raise StoreError for a place of a store to be whose name says no container that can lie there."""
    if isinstance(where, Bucket) and where.suffix != ".zarr":
        raise StoreError(f"{where}: only zarr stores can lie in a bucket; expected a name that ends in .zarr")
    if where.suffix not in SUFFIXES:
        raise StoreError(
            f"{where}: unknown container {where.suffix or '(no suffix)'!r}; expected a path ending in "
            f"{' or '.join(SUFFIXES)}"
        )


def check_exists(where: Path) -> None:
    """Raise StoreError where nothing lies."""
    if not where.exists():
        raise absent(where)


def absent(where: Path | Bucket) -> StoreError:
    """What to say of a store that is not there."""
    found = unfinished_advice(where) or f"no such store; `extract --store {where}` makes it"
    return StoreError(f"{where}: {found}")


def unfinished_advice(where: Path | Bucket) -> str | None:
    """How to come to a store that was begun and is not complete; None where none was begun."""
    draft = unfinished_place(Path(os.path.realpath(where)) if isinstance(where, Path) else where)
    try:
        begun = draft.read("begun.json") if isinstance(draft, Bucket) else (draft / "begun.json").read_bytes()
        converted = "converted" in json.loads(begun)["attributes"]["provenance"]
    except OSError:
        return None
    except (ValueError, KeyError, TypeError):  # damaged, which whoever goes on is told
        converted = False
    how = "`store convert`" if converted else "`extract`"
    return (
        f"was begun and is not finished ({draft}); go on with the {how} command that began it, and --resume"
    )
