"""One writer of a folder at a time: a second one gets a one-line error, a dead one blocks nobody."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from bad_input import FEW_CLASSES, FOLDER, QUICK, TINY, refuse, run, succeed
from faults import ended, forked

from store.errors import UserError
from store.storage.lock import lock_of, sole_writer

pytestmark = pytest.mark.usefixtures("in_tmp_path")


class Gate:
    """A point in another process where it reports its arrival and waits until it is released."""

    def __init__(self) -> None:
        self._reached, self._left = os.pipe(), os.pipe()

    def wait(self, says: bytes = b"!") -> None:
        """In the other process: report that it is reached, and wait."""
        os.write(self._reached[1], says)
        os.read(self._left[0], 1)

    def reached(self, n: int = 1) -> bytes:
        """Wait until it is reached `n` times; return the reports."""
        return b"".join(os.read(self._reached[0], 1) for _ in range(n))

    def open(self, n: int = 1) -> None:
        """Release the process."""
        os.write(self._left[1], b"!" * n)


def leftovers() -> list[Path]:
    return [path for path in Path().rglob("*") if "lock" in path.name]


def refusal(folder: Path) -> str:
    """The error of a writer that must fail."""
    with pytest.raises(UserError) as refused, sole_writer(folder, "run"):
        pass
    return str(refused.value)


def hold(folder: Path, gate: Gate) -> Callable[[], None]:
    """Code that takes the lock of a folder, or fails, and prints which."""

    def run() -> None:
        try:
            with sole_writer(folder, "run"):
                gate.wait(b"held")
        except UserError:
            gate.wait(b"busy")

    return run


def test_a_second_writer_is_refused_until_the_first_has_ended() -> None:
    gate, folder = Gate(), Path("some/where/run")
    holder = forked(hold(folder, gate))
    assert gate.reached(4) == b"held"
    assert "some/where/run: another process is writing this run; wait for it" in refusal(folder)
    with sole_writer(Path("some/where/other"), "run"):
        pass
    gate.open()
    assert ended(*holder) == 0
    with sole_writer(folder, "run"):
        assert lock_of(folder).exists()
    assert list(Path().rglob("*")) == []  # the folders above it were only created for the lock


def test_of_several_that_start_at_once_one_is_let_in() -> None:
    for _ in range(4):
        start, gate = Gate(), Gate()

        def run(start: Gate = start, gate: Gate = gate) -> None:
            start.wait()
            hold(Path("run"), gate)()

        children = [forked(run) for _ in range(3)]
        start.reached(3)
        start.open(3)
        said = gate.reached(12)
        gate.open(3)
        assert [ended(*child) for child in children] == [0, 0, 0]
        assert sorted(said) == sorted(b"heldbusybusy")
        assert leftovers() == []


def test_a_killed_writer_leaves_no_lock_that_holds() -> None:
    gate, folder = Gate(), Path("run")
    child, pipe = forked(hold(folder, gate))
    gate.reached(4)
    os.kill(child, signal.SIGKILL)
    assert ended(child, pipe) == -signal.SIGKILL
    with sole_writer(folder, "run"):
        pass
    assert leftovers() == []


def test_a_child_does_not_hold_its_parents_lock() -> None:
    """Such as a worker that decodes images, which may outlive a killed parent."""
    gate = Gate()
    with sole_writer(Path("run"), "run"):
        child = forked(gate.wait)
        gate.reached()
    with sole_writer(Path("run"), "run"):
        pass
    gate.open()
    assert ended(*child) == 0


def test_a_link_to_a_folder_has_the_folders_lock() -> None:
    Path("real").mkdir()
    Path("link").symlink_to("real")
    with sole_writer(Path("link"), "run"):
        assert "real: another process" in refusal(Path("real"))


def test_a_folder_whose_parent_may_not_be_written_has_its_lock_inside(
    small_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example a disk mounted at /out; a lock that a killed process left there is not foreign."""
    Path("out").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    lock_of(Path("out")).touch()
    assert lock_of(Path("out")).parent == Path("out").resolve()
    command = ["train", *FOLDER, *TINY, "--root", small_root, "--out", "out"]
    succeed(*command)
    lock_of(Path("out")).touch()
    succeed(*command, "--overwrite")
    assert leftovers() == []
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "checkpoint.pt",
        "config.json",
        "metrics.csv",
    ]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_a_run_is_written_and_a_store_is_not(
    number: int, small_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as some Lustre and NFS mounts."""

    def refuse_to_lock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse_to_lock)
    result = succeed("train", *FOLDER, *TINY, "--root", small_root, "--out", "phase1")
    assert f"note: {Path().resolve()}: its file system has no locks ({os.strerror(number)})" in result.stderr
    assert leftovers() == []
    says = [f"cannot be locked ({os.strerror(number)}); write to a file system with locks"]
    refuse("extract", "--ckpt", "phase1/checkpoint.pt", "--device", "cpu", "--store", "s.zarr", says=says)


def test_a_lock_of_another_user_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a shared folder, left by another user's killed process."""
    lock, usual = lock_of(Path("run")), Path.open
    lock.touch()

    def refuse_theirs(path: Path, *how: object, **more: object) -> object:
        if path == lock:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return usual(path, *how, **more)

    monkeypatch.setattr(Path, "open", refuse_theirs)
    says = (
        f"{lock}: this lock cannot be opened (Permission denied), perhaps because another user is writing run"
    )
    assert says in refusal(Path("run"))
    assert lock.exists()
    lock.unlink()
    assert "run: cannot be written (Permission denied)" in refusal(Path("run"))


def test_a_place_that_cannot_be_written_is_named() -> None:
    assert "/proc/some/run: cannot be written (" in refusal(Path("/proc/some/run"))


STOPS = {  # a point in the middle of each command
    "train": "extract.train._save",
    "finetune": "finetune.train.write_run",
    "sweep": "finetune.sweep.sweep.train_batch",
    "analyze": "finetune.compare.analyze.write_report",
}


@pytest.mark.parametrize("command", STOPS)
def test_a_second_command_into_one_folder_is_refused(
    command: str, small_root: Path, small_store: Path, digits_run: Path
) -> None:
    options = {
        "train": [*FOLDER, *TINY, "--root", small_root],
        "finetune": ["--store", small_store, *QUICK, *FEW_CLASSES],
        "sweep": [
            *("--store", small_store, "--iterations", 2, "--device", "cpu", *FEW_CLASSES),
            *("--seeds", 1, "--select-on", "test"),
        ],
        "analyze": [digits_run],
    }[command]
    room, _, name = STOPS[command].rpartition(".")
    original, gate = getattr(__import__(room, fromlist=[name]), name), Gate()
    stopped: list[bool] = []

    def waiting(*arguments: object) -> object:
        if not stopped:
            stopped.append(True)
            gate.wait()
        return original(*arguments)

    def first() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(STOPS[command], waiting)
            succeed(command, *options, "--out", "out")

    child = forked(first)
    gate.reached()
    refuse(command, *options, "--out", "out", says=["out: another process is writing this", "wait for it"])
    refuse(command, *options, "--out", Path("out").resolve(), says=["another process is writing this"])
    gate.open()
    assert ended(*child) == 0
    assert leftovers() == []


def test_a_second_demo_into_one_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()

    def wait_and_stop(*_: object) -> None:
        gate.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr("extract.train.train", wait_and_stop)
    child = forked(lambda: os._exit(run("demo", "--out", "out").exit_code))
    gate.reached()
    result = run("demo", "--out", "out")
    assert "out: another process is writing this demo" in result.stderr
    gate.open()
    assert ended(*child) == 130
    assert leftovers() == []
