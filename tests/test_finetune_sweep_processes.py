"""The processes of a sweep wait for each other as long as they are alive."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from torch.distributed import HashStore

from finetune.commands.console import fail
from finetune.sweep.processes import POLLS, Processes, processes
from store.errors import UserError


def begin(rank: int, stopped: int, port: int, said: Path) -> int:
    """Fork a process that meets the other twice, or stops in between; returns its process id."""
    child = os.fork()
    if child:
        return child
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
    os.environ |= place
    sys.stderr = said.open("w")
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(60)  # killed, so that it cannot wait forever
    try:
        with processes(silence=1.0) as group:
            if rank == stopped:
                os.kill(os.getpid(), signal.SIGSTOP)
            group.meet()
    except UserError as error:
        with suppress(SystemExit):
            fail(str(error))
        sys.stderr.flush()
        os._exit(2)
    finally:
        os._exit(1)


@pytest.mark.parametrize("stopped", [0, 1])
def test_one_that_is_lost_ends_the_others_in_one_line(stopped: int, tmp_path: Path) -> None:
    """Whether it hosts the store or not. A stopped process keeps its connections, like a lost machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [begin(rank, stopped, port, tmp_path / str(rank)) for rank in range(2)]
    try:
        _, status = os.waitpid(children[1 - stopped], 0)
        assert os.waitpid(children[stopped], os.WNOHANG) == (0, 0)  # it did not exit by itself
    finally:
        os.kill(children[stopped], signal.SIGKILL)
        os.waitpid(children[stopped], 0)
    (line,) = (tmp_path / str(1 - stopped)).read_text().splitlines()
    assert line.startswith(f"tailcache: sweep: the process of rank {stopped} has not been heard from for 1 s")
    assert line.endswith("continue with --resume")
    assert os.waitstatus_to_exitcode(status) == 2


@pytest.fixture
def two() -> Iterator[list[Processes]]:
    """Two in this process, which count as gone after a third of a second."""
    store = HashStore()
    made = [Processes(rank, 2, store, silence=0.3) for rank in range(2)]
    yield made
    leaving = [threading.Thread(target=one.leave, args=(False,)) for one in made]
    for thread in leaving:
        thread.start()
    for thread in leaving:
        thread.join()


def test_a_slow_one_is_waited_for(two: list[Processes]) -> None:
    """Even three times as long as the time after which a silent one counts as gone."""
    first, slow = two
    met = threading.Thread(target=first.meet)
    met.start()
    with slow._news:
        assert slow._news.wait_for(lambda: slow._polls > 3 * POLLS, timeout=60)
    assert met.is_alive()
    slow.meet()
    met.join(60)
    assert not met.is_alive()


def test_a_failure_is_told_to_the_others_unless_they_had_met(two: list[Processes]) -> None:
    first, second = two
    met = threading.Thread(target=second.meet)
    met.start()
    first.meet()
    met.join(60)
    second.leave(failed=True)
    with pytest.raises(UserError, match="another process stopped; its message says why"):
        first.meet()


def test_one_that_never_came_is_named() -> None:
    alone = Processes(0, 3, HashStore(), silence=0.3)
    with pytest.raises(UserError, match=r"the process of rank 1 has not been heard from for 0\.3 s"):
        alone.meet()


def test_a_lone_process_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes() as group:
        group.meet()
    assert (group.rank, group.world) == (0, 1)


def test_processes_that_do_not_find_each_other_are_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match="sweep: its processes cannot find each other"), processes():
        pass
