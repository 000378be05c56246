"""How far a training has come, as its checkpoint says: told without torch, which takes seconds to import.

A checkpoint is a zip file, and its values lie in a pickle. That is looked through as bytes: no object is made
of it and no code in it can run.
"""

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path

FORMAT = "tailcache-checkpoint"
FORMAT_VERSION = 1
KINDS = {"format": str, "format_version": int, "epoch": int, "epochs": int}  # the first value under each name


def how_far(path: Path) -> tuple[int, int] | None:
    """Epochs that are finished, and that there are to be; None where a whole look at the file must tell.

    Args:
        path: of a file that may be no checkpoint, or none of ours.
    """
    found: dict[str, object] = {}
    try:
        for name, value in _named_values(path):
            if name in KINDS and isinstance(value, KINDS[name]):
                found.setdefault(name, value)
            if len(found) == len(KINDS):
                break
    except (OSError, ValueError, KeyError, StopIteration, zipfile.BadZipFile, NotImplementedError):
        return None
    if found.keys() != KINDS.keys() or (found["format"], found["format_version"]) != (FORMAT, FORMAT_VERSION):
        return None
    return found["epoch"], found["epochs"]


def _named_values(path: Path) -> Iterator[tuple[object, object]]:
    """Each constant of the pickle with the one that follows it: a key of a dict with its value, say."""
    with zipfile.ZipFile(path) as file:
        name = [name for name in file.namelist() if name.endswith("/data.pkl")][:1]
        before, kept = None, {}
        for code, value, _ in pickletools.genops(file.read(name[0])) if name else ():
            if "PUT" in code.name:  # gives what came before it a number
                kept[value] = before
                continue
            value = kept.get(value) if "GET" in code.name else value
            yield before, value
            before = value
