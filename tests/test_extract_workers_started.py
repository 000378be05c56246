"""Signals to worker processes that have hardly begun: none runs what is the program's."""

import os
import signal
from contextlib import nullcontext
from multiprocessing.process import BaseProcess

import pytest
import torch
from made_workers import (
    files_of,
    program,
    read,
)
from torch.utils.data._utils import signal_handling

import extract.images.parts
from extract.images.processes import Workers
from store.errors import UserError

pytestmark = pytest.mark.usefixtures("two_workers")


@pytest.fixture
def exit_codes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of the processes that have ended."""
    found, close = [], BaseProcess.close
    monkeypatch.setattr(BaseProcess, "close", lambda self: (found.append(self.exitcode), close(self)))
    return found


@pytest.fixture
def in_start(monkeypatch: pytest.MonkeyPatch):
    """Do something in each worker before it has handlers of its own, and with those of a command."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    original = signal_handling._set_worker_signal_handlers

    def begin(do) -> None:
        monkeypatch.setattr(signal_handling, "_set_worker_signal_handlers", lambda: (do(), original()))

    yield begin
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_workers_that_have_hardly_begun_do_nothing_as_they_end(ten_images, in_start, exit_codes, capfd):
    """What they run until then is code of this process, which would clean up for it."""
    (begun, begins), (told, tells) = os.pipe(), os.pipe()

    def handle(*_: object) -> None:
        os.write(tells, b"handled")
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handle)
    in_start(lambda: (os.write(begins, b"!"), os.read(told, 1)))
    workers = Workers(2, waiting=False)
    workers.begin(files_of(ten_images), [range(5), range(5, 10)])
    assert os.read(begun, 1) + os.read(begun, 1) == b"!!"
    workers.end()
    assert exit_codes == [-signal.SIGKILL] * 2
    os.close(tells)
    assert os.read(told, 10) == b""
    assert capfd.readouterr().err == ""
    for pipe in (begun, begins, told):
        os.close(pipe)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("when", ["at once", "in its start"])
def test_a_signal_before_a_worker_is_one_waits(ten_images, in_start, number, when, capfd, monkeypatch):
    """Those that this process handles are left to it; a worker that is terminated says nothing."""
    me, fork = os.getpid(), os.fork
    before = signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.signal(number, signal.default_int_handler)

    def forking() -> int:
        if not (child := fork()):
            os.kill(os.getpid(), number)
        return child

    if when == "at once":
        monkeypatch.setattr(os, "fork", forking)
    else:
        in_start(lambda: os.kill(os.getpid(), number))
    try:
        with (
            pytest.raises(UserError, match="reads images died") if number == signal.SIGTERM else nullcontext()
        ):
            assert len(read(ten_images)) == 6
    finally:
        if os.getpid() != me:
            os._exit(77)  # a second copy of this program
        signal.signal(number, before[1])
    assert capfd.readouterr().err == ""
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before[0]


def test_signals_that_wait_in_the_program_wait_in_its_workers(ten_images, monkeypatch):
    """Such as those that it takes in a thread of their own."""
    views, before = (
        extract.images.parts.image_views,
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]),
    )

    def sent(*arguments: object) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGUSR1)
        return views(*arguments)

    monkeypatch.setattr(extract.images.parts, "image_views", sent)
    try:
        assert len(read(ten_images)) == 6
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_program_does_not_wait_for_workers_that_are_stuck_in_their_start(ten_images):
    """It ends with batches that were begun, and signals are still held back in their workers."""
    code = """
import os, sys
from pathlib import Path
import made_workers
from extract.images.batches import evaluation_batches
from extract.images.transforms import Transform
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

import extract.images.parts
signal_handling._set_worker_signal_handlers = lambda: os.read(os.pipe()[0], 1)
made_workers.extract.images.workers.available_cores = lambda: 2
made_workers.extract.images.workers.LONGEST = 5
batches = evaluation_batches(made_workers.made_split(Path(sys.argv[1])), Transform(72), made_workers.COMPUTE)
begin = made_workers.extract.images.processes.Workers.begin

def begun(*asked):
    begin(*asked)
    sys.exit(3)

made_workers.extract.images.processes.Workers.begin = begun
next(batches)
"""
    done = program(code, ten_images)
    assert (done.returncode, done.stderr) == (3, b"")
