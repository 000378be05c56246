"""How worker processes end: with the work, whoever failed, in whatever state, and without a trace."""

import gc
import os
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import ended, forked
from made_workers import COMPUTE, SIZE, N, allow_two, made_split, read, with_bad_image
from torch.utils.data._utils import signal_handling

import extract.images.parts
import extract.images.workers
from extract.images.batches import evaluation_batches
from extract.images.image_set import ImageSet
from extract.images.parts import ImageFiles
from extract.images.processes import Workers
from extract.images.transforms import Transform
from extract.images.workers import keep_workers
from store.errors import UserError

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return made_split(tmp_path_factory.mktemp("images"))


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch):
    """Two workers on any machine; after each test no process of theirs, and no thread of a queue to one."""
    allow_two(monkeypatch)
    before = set(active_children()), set(threading.enumerate())
    yield
    assert set(active_children()) <= before[0]
    assert [thread.name for thread in set(threading.enumerate()) - before[1]] == []


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each time that a process was waited for, whether it was in vain."""
    found, join = [], BaseProcess.join

    def noted(process: BaseProcess, timeout: float | None = None) -> None:
        join(process, timeout)
        found.append(process.is_alive())

    monkeypatch.setattr(BaseProcess, "join", noted)
    return found


@pytest.mark.parametrize("kept", [False, True])
def test_a_bad_image_is_told_by_its_name_and_workers_end_with_it(split, kept, tmp_path):
    """At once, not when the error is collected as garbage: that may be never."""
    bad, before = tmp_path / "bad.png", set(active_children())
    with keep_workers() if kept else nullcontext():
        with pytest.raises(UserError, match=f"{bad}: not a readable image") as raised:
            read(with_bad_image(split, bad, at=5))
        assert set(active_children()) <= before
    assert raised.tb


@pytest.mark.parametrize("kept", [False, True])
def test_workers_end_with_the_work(split, kept, waited):
    """Not when they are collected as garbage: an error in what follows may keep them for long."""
    before, begin, begun = set(active_children()), Workers.begin, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workers, "begin", lambda self, *asked: (begun.append(self), begin(self, *asked))[1])
        with keep_workers() if kept else nullcontext():
            assert len(read(split)) == 6
            assert len(set(active_children()) - before) == (2 if kept else 0)
    assert len(begun) == (1 if kept else 2)
    assert set(active_children()) <= before
    assert set(waited) == {False}


def fail_within(split: ImageSet) -> None:
    batches = evaluation_batches(split, Transform(SIZE), COMPUTE)
    for _ in batches:
        raise ArithmeticError


def test_workers_of_a_loop_that_failed_keep_no_collection_of_garbage_waiting(split, waited):
    """The traceback holds the batches; nothing is told to end before the two are collected together."""
    before = set(active_children())
    with pytest.raises(ArithmeticError) as raised:
        fail_within(split)
    assert len(set(active_children()) - before) == 2
    error = raised.value
    error.itself = error  # a cycle
    del error, raised
    gc.collect()
    assert set(active_children()) <= before
    assert set(waited) == {False}


def test_no_workers_of_a_loop_that_failed_are_left_where_they_are_kept(split, waited):
    """Here the traceback lives on."""
    before = set(active_children())
    with keep_workers():
        read(split)
        assert len(set(active_children()) - before) == 2
        with pytest.raises(ArithmeticError) as raised:
            fail_within(split)
    assert set(active_children()) <= before
    assert set(waited) == {False}
    assert raised.tb


def test_workers_that_are_busy_are_not_waited_for(split, monkeypatch, waited):
    reading, writing = os.pipe()
    views, before = extract.images.parts.image_views, set(active_children())

    def forever(path: Path, *arguments: object) -> torch.Tensor:
        return views(path, *arguments) if path in split.images[:2] else os.read(reading, 1)

    monkeypatch.setattr(extract.images.parts, "image_views", forever)
    batches = evaluation_batches(split, Transform(SIZE), replace(COMPUTE, batch_size=2))
    next(batches)
    batches.close()
    assert set(active_children()) <= before
    assert set(waited) == {False}
    os.close(reading)
    os.close(writing)


def test_a_lock_that_a_worker_takes_along_is_not_waited_for(split, monkeypatch):
    """Each looks between two parts whether it is to end, which is behind a lock of all processes."""
    me, is_set, set_it = os.getpid(), Event.is_set, Event.set

    def forever(event: Event) -> bool:
        if os.getpid() == me:
            return is_set(event)
        with event._cond:
            return signal.pause()

    def setting(event: Event) -> None:
        assert event._cond.acquire(timeout=5), "a dead process has it"
        event._cond.release()
        set_it(event)

    monkeypatch.setattr(Event, "is_set", forever)
    monkeypatch.setattr(Event, "set", setting)
    monkeypatch.setattr(extract.images.workers, "LONGEST", 1)
    with pytest.raises(UserError, match="no image came from the worker processes"):
        read(split)


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


def test_workers_that_have_hardly_begun_do_nothing_as_they_end(split, in_start, capfd):
    """What they run until then is code of this process, which would clean up for it."""
    (begun, begins), (told, tells) = os.pipe(), os.pipe()

    def handle(*_: object) -> None:
        os.write(tells, b"handled")
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handle)
    in_start(lambda: (os.write(begins, b"!"), os.read(told, 1)))
    workers = Workers(2, waiting=False)
    workers.begin(files_of(split), [range(5), range(5, 10)])
    assert os.read(begun, 1) + os.read(begun, 1) == b"!!"
    processes = workers._loaded._workers
    workers.end()
    assert [process.exitcode for process in processes] == [-signal.SIGKILL] * 2
    os.close(tells)
    assert os.read(told, 10) == b""
    assert capfd.readouterr().err == ""
    for pipe in (begun, begins, told):
        os.close(pipe)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_workers_start_waits_until_it_is_one(split, in_start, number, capfd):
    """Ctrl-C is left to the process that was started; one that is terminated says nothing."""
    me = os.getpid()
    in_start(lambda: os.kill(os.getpid(), number) if os.getpid() != me else None)
    if number == signal.SIGINT:
        assert len(read(split)) == 6
    else:
        with pytest.raises(UserError, match="a worker process that reads images died"):
            read(split)
    assert capfd.readouterr().err == ""
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGINT, signal.SIGTERM}


def files_of(split: ImageSet) -> ImageFiles:
    return ImageFiles(split, Transform(SIZE), range(N), np.zeros((N, 1), np.int64))


def test_workers_whose_next_parts_do_not_fit_in_a_pipe_end_all_the_same(split, monkeypatch):
    """The thread that hands them over waits for room that no process makes any more."""
    reading, writing = os.pipe()
    many = replace(files_of(split), seeds=np.full((N, 2**16), 2**62))
    monkeypatch.setattr(extract.images.parts, "image_views", lambda *_: os.read(reading, 1))  # forever
    workers = Workers(2, waiting=True)
    workers.begin(many, [range(i, i + 1) for i in range(N)])
    queues = workers._loaded._index_queues
    workers.end()
    assert not any(queue._thread.is_alive() for queue in queues)
    assert all(queue._reader.closed and queue._writer.closed for queue in queues)
    os.close(reading)
    os.close(writing)


def test_a_process_that_was_forked_meanwhile_ends_no_workers(split):
    batches = evaluation_batches(split, Transform(SIZE), COMPUTE)
    next(batches)
    assert ended(*forked(batches.close)) == 0
    assert len(list(batches)) == 2


def test_a_program_does_not_wait_for_workers_that_are_stuck_in_their_start(split):
    """It ends with batches that were begun, and signals are still held back in their workers."""
    code = """
import os, sys
from pathlib import Path
import made_workers
from extract.images.batches import evaluation_batches
from extract.images.transforms import Transform
from torch.utils.data._utils import signal_handling

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
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [sys.executable, "-c", code, str(split.images[0].parent)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (3, b"")
