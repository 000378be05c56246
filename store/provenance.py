"""What made a file: versions of the program and its dependencies, the program's commit, and the time."""

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import store

PACKAGES = ("torch", "torchvision", "zarr", "h5py", "numpy", "pandas")
CHECKOUT = Path(store.__file__).resolve().parent.parent
GIT_SECONDS = 2  # longest wait for git, on a slow file system


def versions() -> dict[str, str]:
    """Versions by name, without importing anything."""
    found = {"tailcache": store.__version__, "python": platform.python_version()}
    return found | _installed()


@cache  # a run asks for them several times, and each is a file to parse
def _installed() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit(checkout: Path = CHECKOUT) -> dict[str, Any] | None:
    """The git commit that the program runs from, and whether tracked files differ from it.

    Returns:
        `id` (hexadecimal) and `dirty`; None if the program does not run from a checkout, or git fails.
    """
    if not (checkout / ".git").exists():  # else git would find a checkout around an installed program
        return None
    status = ["--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        lines = subprocess.run(
            ["git", "-C", os.fspath(checkout), *status],
            env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    found = next((line.split()[-1].decode() for line in lines if line.startswith(b"# branch.oid ")), "(none)")
    if found.startswith("("):  # a repository without a commit
        return None
    return {"id": found, "dirty": any(not line.startswith(b"#") for line in lines)}


def now() -> int:
    """Seconds since 1970 UTC: the one clock of stores, so that tests can stop it."""
    return int(time.time())


def as_utc(seconds: int) -> str:
    """A time of `now` in ISO 8601; as a number if it is outside of the calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s after 1970"
