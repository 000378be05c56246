"""Memory of the host that this process may use: what is free, and what its container leaves of that."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

CONTROLLERS = "sys/fs/cgroup"  # where Linux shows what groups of processes may use


@dataclass(frozen=True)
class Version:
    """The files of a version of control groups, in the folder of a group.

    Attributes:
        limit: bytes that the group may use, or a word; without a limit, more than any machine has.
        usage: bytes that it uses, files that the kernel keeps in memory included.
        reclaimable: the line of memory.stat with the bytes of files that can be given up.
    """

    limit: str
    usage: str
    reclaimable: str


V1 = Version("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = Version("memory.max", "memory.current", "inactive_file")


def available_memory(system: Path = Path("/")) -> int:
    """Bytes of host memory available, including what the page cache would give up.

    In a container, at most what its limit leaves (control groups of Linux, version 1 or 2; also those above).

    Args:
        system: the root of the file system, which tests replace.
    """
    return min([psutil.virtual_memory().available, *_left_in_groups(system)])


def _left_in_groups(system: Path) -> Iterator[int]:
    for version, folder in _groups(system):
        try:
            limit = int((folder / version.limit).read_text())
            usage = int((folder / version.usage).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            yield max(0, limit - usage + int(stat.get(version.reclaimable, 0)))
        except (OSError, ValueError):  # no such group, or no limit ("max")
            continue


def _groups(system: Path) -> Iterator[tuple[Version, Path]]:
    """The folders of this process's group and those above it; inside a container, often the top one alone."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not on Linux
        return
    root = system / CONTROLLERS
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        version, top = (V1, root / "memory") if controllers else (V2, root)
        # A container may be told a path of the host's, which it does not see: its own group is then the top.
        below = [part for part in path.split("/") if part]
        for depth in range(0 if ".." in below else len(below), -1, -1):
            yield version, top.joinpath(*below[:depth])
