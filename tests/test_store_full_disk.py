"""Disks that fill up during `extract`: small file systems, and a limit on the size of files."""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from bad_input import run, succeed
from click.testing import Result
from s3_server import in_process

from store.reader import FeatureStore

A_FEW_BLOCKS = 5 * 4096  # bytes: while a compressed HDF5 store is written, each block is a file of a page
CONTAINERS = {"zarr": ("s.zarr", "none"), "h5": ("s.h5", "none"), "packed-h5": ("s.h5", "zstd")}


@pytest.fixture(params=CONTAINERS)
def command(request, small_ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """`extract` of a few images to a store of several blocks, which is the last argument."""
    monkeypatch.setattr("store.layout.BLOCK_BYTES", 1)
    name, codec = CONTAINERS[request.param]
    options = ["--dtype", "float32", "--codec", codec, "--batch-size", 4, "--device", "cpu"]
    return ["extract", "--ckpt", small_ckpt, *options, "--store", name]


@pytest.fixture
def whole(command: list[object], tmp_path: Path) -> Path:
    """The store, written with enough room."""
    path = tmp_path / "whole" / str(command[-1])
    succeed(*command[:-1], path)
    return path


@contextmanager
def room(folder: Path, n_bytes: int) -> Iterator[Callable[[int], None]]:
    """A folder with room for so many bytes; the function that it yields changes the number.

    A file system of that size or, if none can be mounted, a limit of an eighth of it on each file.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        with limited(n_bytes // 8) as limit:
            yield lambda n_bytes: limit(n_bytes // 8)
        return
    try:
        yield lambda n_bytes: subprocess.run(["mount", "-o", f"remount,size={n_bytes}", folder], check=True)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def limited(n_bytes: int) -> Iterator[Callable[[int], None]]:
    """Limit the size of this process's files; the function that it yields changes the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(n_bytes: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))

    try:
        limit(n_bytes)
        yield limit
    finally:
        limit(soft)


def stored_bytes(path: Path) -> int:
    """Bytes of a store in whole pages, as tmpfs stores files."""
    files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
    return sum(-(-f.stat().st_size // 4096) * 4096 for f in files)


def refused(result: Result, path: Path) -> str:
    """The one-line error of an extraction without enough room; nothing is at the store's path."""
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"tailcache: {path}: ")
    assert "; make room, then run " in line
    assert not path.exists()
    return line


def same_rows(path: Path, other: Path) -> None:
    """Two stores hold the same, except for their start times."""
    one, two = FeatureStore(path), FeatureStore(other)
    assert one.arrays.keys() == two.arrays.keys()
    for name, array in one.arrays.items():
        if name != "checksum/metadata":
            np.testing.assert_array_equal(array.read(), two.arrays[name].read(), strict=True)


def extract_with(limit: Callable[[int], None], command: list[object], path: Path, step: int) -> list[str]:
    """Extract with a step more room each time, resuming where the error says so; return every error."""
    lines, room = [], step
    limit(room)
    while (result := run(*command[:-1], path, *resume(path))).exit_code:
        lines.append(refused(result, path))
        go_on = "run the same command with --resume" if resume(path) else "run it again"
        assert lines[-1].endswith(go_on)
        room += step
        limit(room)
    return lines


def resume(path: Path) -> list[str]:
    """The options of the next attempt."""
    return ["--resume"] if path.with_name(f"{path.name}.unfinished").exists() else []


def test_a_disk_that_is_too_small(command, whole, tmp_path):
    """Full while the tree is created, in the middle, and at the end: one line each time, then it resumes."""
    path = tmp_path / "small" / str(command[-1])
    total = stored_bytes(whole)
    with room(path.parent, total) as limit:
        step = max(total // 12, A_FEW_BLOCKS) if "zstd" in command else total // 12
        lines = extract_with(limit, command, path, step)
        same_rows(path, whole)
        assert os.listdir(path.parent) == [path.name]
    assert any(line.endswith("again") for line in lines)
    assert any(line.endswith("--resume") for line in lines)


def test_a_file_that_would_be_too_large(command, whole, tmp_path):
    path = tmp_path / "limited" / str(command[-1])
    largest = max(f.stat().st_size for f in [whole, *whole.rglob("*")] if f.is_file())
    with limited(largest) as limit:
        lines = extract_with(limit, command, path, largest // 12)
    assert all("a file would be larger than the file system or `ulimit -f` permits" in line for line in lines)
    assert len(lines) >= 4
    same_rows(path, whole)


@pytest.mark.parametrize("n_writes", [0, 1, 20])
def test_hdf5_ends_with_its_process_after_a_full_disk(tmp_path, n_writes):
    """HDF5 must neither retry nor crash at exit on what it could not write; this needs another process."""
    code = """
import os
import sys
import store.containers.hdf5_driver
from made_store import made_plan
from store.containers.hdf5 import Hdf5Container
from pathlib import Path

def full(file, content, offset, write=os.pwrite, writes=iter(range(int(sys.argv[2])))):
    for _ in writes:
        return write(file, content, offset)
    raise OSError(28, "No space left on device")

store.containers.hdf5_driver.os.pwrite = full
plan = made_plan()
try:
    Hdf5Container(Path(sys.argv[1]), plan.layouts, {}).create(plan.attributes)
except OSError as error:
    print(error)
"""
    assert in_process(code, str(tmp_path / "s.h5"), str(n_writes)) == "[Errno 28] No space left on device\n"
