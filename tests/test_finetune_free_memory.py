"""Memory that a container leaves: the least of what is free and what its groups may still use."""

from collections import namedtuple
from pathlib import Path

import pytest

from finetune.loading.free_memory import available_memory

GIB = 2**30
FREE = 100 * GIB
UNLIMITED_V1 = 9223372036854771712
Memory = namedtuple("Memory", "available")


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory(FREE))


def told(system: Path, *lines: str) -> None:
    """What a process is told of its groups."""
    path = system / "proc/self/cgroup"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def group(system: Path, where: str, limit: object, usage: int, files: int = 0, version: int = 2) -> None:
    """A group that uses so many bytes, some of them for files that can be given up."""
    folder = system / "sys/fs/cgroup" / where
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current", "") if version == 2 else NAMES_OF_V1
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(
        f"anon {usage - files}\ninactive_file 5\n{names[2]}inactive_file {files}\n"
    )


NAMES_OF_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")


def test_without_groups_all_that_is_free_counts(tmp_path):
    assert available_memory(tmp_path) == FREE


def test_a_container_of_version_2_shows_its_own_group_at_the_top(tmp_path):
    told(tmp_path, "0::/")
    group(tmp_path, "", 8 * GIB, 3 * GIB, GIB)
    assert available_memory(tmp_path) == 6 * GIB


def test_the_group_above_may_leave_less(tmp_path):
    told(tmp_path, "0::/user.slice/job.scope")
    group(tmp_path, "user.slice/job.scope", 8 * GIB, GIB)
    group(tmp_path, "user.slice", 9 * GIB, 7 * GIB)
    assert available_memory(tmp_path) == 2 * GIB
    group(tmp_path, "user.slice", "max", 7 * GIB)
    assert available_memory(tmp_path) == 7 * GIB


def test_version_1_and_a_path_of_the_hosts(tmp_path):
    told(tmp_path, "9:name=systemd:/docker/1a", "4:cpu,memory:/docker/1a", "3:cpuset:/", "0::/")
    group(tmp_path, "memory", 4 * GIB, 3 * GIB, GIB, version=1)
    assert available_memory(tmp_path) == 2 * GIB
    group(tmp_path, "memory/docker/1a", 4 * GIB, 3 * GIB, version=1)  # where the host shows it
    group(tmp_path, "memory", UNLIMITED_V1, 30 * GIB, version=1)
    assert available_memory(tmp_path) == GIB


def test_a_host_with_less_than_its_limit(tmp_path):
    told(tmp_path, "0::/")
    group(tmp_path, "", 500 * GIB, GIB)
    assert available_memory(tmp_path) == FREE


def test_a_group_that_is_full_leaves_nothing(tmp_path):
    told(tmp_path, "0::/")
    group(tmp_path, "", 2 * GIB, 3 * GIB)
    assert available_memory(tmp_path) == 0


@pytest.mark.parametrize("line", ["0::/../../other", "0::/gone", "odd"])
def test_what_cannot_be_read_is_no_limit(tmp_path, line):
    told(tmp_path, line)
    group(tmp_path, "../other", 1, 1)
    assert available_memory(tmp_path) == FREE


def test_this_process_may_use_some():
    assert 0 < available_memory() <= FREE
