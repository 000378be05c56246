"""Files that torch wrote, read without running any code in them: one reading, and one set of refusals."""

import warnings
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from store.errors import UserError

START = b"PK\x03\x04"  # of a zip file, which torch writes


@dataclass(frozen=True)
class Kind:
    """A kind of file: a dictionary that says under `format` what it is.

    Attributes:
        what: it is, in words, for messages.
        format: its name for itself.
        advice: what to do about one that cannot be used.
        needs: names without which it is not whole.
        version: that this program reads, of `format_version`; one that does not say is of version 1.
        error: what is raised.
    """

    what: str
    format: str
    advice: str
    needs: Collection[str]
    version: int = 1
    error: type[UserError] = UserError

    @property
    def marks(self) -> dict[str, Any]:
        """What a file of this kind holds for `read_torch_file` to know it by."""
        return {"format": self.format, "format_version": self.version}


def read_torch_file(path: Path, kind: Kind) -> dict[str, Any]:
    """What a file holds, tensors on the CPU.

    Raises:
        UserError: of the kind's own class: no file of torch's, cut short, damaged, with code in it, of
            another kind or version, or incomplete.
        PermissionError: it may not be read.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's, about pickles that it then refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # bytes that are nothing of ours can fail anywhere in torch's unpickler
        raise kind.error(
            f"{path}: not {kind.what} that can be read safely ({_reason(path)}); {kind.advice}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != kind.format:
        keys = sorted(map(str, content)) if isinstance(content, dict) else []
        found = ", ".join(keys[:4]) or type(content).__name__
        raise kind.error(f"{path}: not {kind.what} of this program (it holds {found}, …); {kind.advice}")
    version = content.get("format_version", 1)
    if version != kind.version:
        raise kind.error(
            f"{path}: {kind.what}, of version {version}; this program reads {kind.version}; {kind.advice}"
        )
    if missing := [name for name in kind.needs if name not in content]:
        raise kind.error(f"{path}: {kind.what}, but it lacks {', '.join(missing)}; {kind.advice}")
    return content


def _reason(path: Path) -> str:
    """Why torch does not read a file."""
    if not path.is_file():
        return "it is no file"
    with path.open("rb") as file:
        start = file.read(len(START))
    if zipfile.is_zipfile(path):
        return "damaged, or with code in it"
    return "cut short" if start == START else "no file that torch wrote, or damaged, or with code in it"
