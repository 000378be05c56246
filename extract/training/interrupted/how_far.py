"""How many epochs a checkpoint has finished, read without torch, which takes seconds to import.

A checkpoint is a zip file with its values in a pickle, which is scanned as bytes: no object is made from it,
and no code in it can run.
"""

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path

FORMAT = "tailcache-checkpoint"
FORMAT_VERSION = 2  # of heads that have more than one FC layer; all others are written as version 1
BEGINNING = 1024  # bytes of a file, where its first values are: the mark is the first of all
# Of the first value under each name.
TYPES = {"format": str, "format_version": int, "epoch": int, "epochs": int}


def how_far(path: Path) -> tuple[int, int] | None:
    """Finished and total epochs; None if only loading the file can tell.

    Args:
        path: a file that may not be a checkpoint of ours.
    """
    found: dict[str, object] = {}
    try:
        for name, value in _named_values(path):
            if name in TYPES and isinstance(value, TYPES[name]):
                found.setdefault(name, value)
            if len(found) == len(TYPES):
                break
    except (OSError, ValueError, KeyError, StopIteration, zipfile.BadZipFile, NotImplementedError):
        return None
    if found.keys() != TYPES.keys() or found["format"] != FORMAT:
        return None
    if not 1 <= found["format_version"] <= FORMAT_VERSION:
        return None
    return found["epoch"], found["epochs"]


def _named_values(path: Path) -> Iterator[tuple[object, object]]:
    """Each constant of the pickle with the next one, for example a key of a dict with its value."""
    with zipfile.ZipFile(path) as file:
        name = [name for name in file.namelist() if name.endswith("/data.pkl")][:1]
        before, kept = None, {}
        for code, value, _ in pickletools.genops(file.read(name[0])) if name else ():
            if "PUT" in code.name:  # gives the constant before it a number
                kept[value] = before
                continue
            value = kept.get(value) if "GET" in code.name else value
            yield before, value
            before = value


def is_marked(path: Path) -> bool:
    """Whether a file begins as a checkpoint of ours does, which damage further on does not change."""
    with path.open("rb") as file:
        return FORMAT.encode() in file.read(BEGINNING)
