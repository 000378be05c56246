"""Reading files that torch wrote, without running any code in them."""

import warnings
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from store.errors import UserError

START = b"PK\x03\x04"  # first bytes of a zip file, the format that torch writes


@dataclass(frozen=True)
class TorchFormat:
    """A file format: a dictionary with an entry `format` that names it.

    Attributes:
        what: the file in words, for messages.
        name: the value of `format`.
        advice: what to do about a file that cannot be used.
        needs: the entries that a file must have.
        version: the latest `format_version`, which this program reads like all before; files without one are
            of version 1.
        error: the class of the errors raised.
        foreign: advice for files of other programs, after `advice`.
    """

    what: str
    name: str
    advice: str
    needs: Collection[str]
    version: int = 1
    error: type[UserError] = UserError
    foreign: str = ""

    @property
    def marks(self) -> dict[str, Any]:
        """The entries that identify a file of this format."""
        return {"format": self.name, "format_version": self.version}


def read_torch_file(path: Path, expected: TorchFormat) -> dict[str, Any]:
    """The content of a file, with tensors on the CPU.

    Raises:
        UserError: of the class `expected.error`: not written by torch, truncated, damaged, with code in it,
            of another format or version, or incomplete.
        PermissionError: the file may not be read.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns about pickles that it then rejects
            content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # foreign bytes can fail anywhere in torch's unpickler
        raise expected.error(
            f"{path}: not {expected.what} that can be read safely ({_reason(path)}); {expected.advice}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != expected.name:
        keys = sorted(map(str, content)) if isinstance(content, dict) else []
        found = ", ".join(keys[:4]) or type(content).__name__
        raise expected.error(
            f"{path}: not {expected.what} of this program (it holds {found}, …); {expected.advice}"
            f"{expected.foreign}"
        )
    version = content.get("format_version", 1)
    if not (type(version) is int and 1 <= version <= expected.version):
        raise expected.error(
            f"{path}: {expected.what}, of version {version}; this program reads {_up_to(expected.version)}; "
            f"{expected.advice}"
        )
    if missing := [name for name in expected.needs if name not in content]:
        raise expected.error(f"{path}: {expected.what}, but it lacks {', '.join(missing)}; {expected.advice}")
    return content


def _up_to(version: int) -> str:
    return "1" if version == 1 else f"1 to {version}"


def _reason(path: Path) -> str:
    """Why torch cannot read a file."""
    if not path.is_file():
        return "it is not a file"
    with path.open("rb") as file:
        start = file.read(len(START))
    if zipfile.is_zipfile(path):
        return "damaged, or with code in it"
    return "truncated" if start == START else "not written by torch, or damaged, or with code in it"
