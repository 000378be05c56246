"""How worker processes end: with the work, whoever failed, in whatever state, and without a trace."""

import gc
import os
import signal
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
from made_workers import (
    COMPUTE,
    SIZE,
    N,
    files_of,
    program,
    read,
    with_bad_image,
)
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

import extract.images.parts
import extract.images.workers
from extract.images.batches import evaluation_batches
from extract.images.image_set import ImageSet
from extract.images.processes import Workers
from extract.images.transforms import Transform
from extract.images.workers import keep_workers
from store.errors import UserError

pytestmark = pytest.mark.usefixtures("two_workers")


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
def test_a_bad_image_is_told_by_its_name_and_workers_end_with_it(ten_images, kept, tmp_path):
    """At once, not when the error is collected as garbage: that may be never."""
    bad, before = tmp_path / "bad.png", set(active_children())
    with keep_workers() if kept else nullcontext():
        with pytest.raises(UserError, match=f"{bad}: not a readable image") as raised:
            read(with_bad_image(ten_images, bad, at=5))
        assert set(active_children()) <= before
    assert raised.tb


@pytest.mark.parametrize("kept", [False, True])
def test_workers_end_with_the_work(ten_images, kept, waited):
    """Not when they are collected as garbage: an error in what follows may keep them for long."""
    before, begin, begun = set(active_children()), Workers.begin, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workers, "begin", lambda self, *asked: (begun.append(self), begin(self, *asked))[1])
        with keep_workers() if kept else nullcontext():
            assert len(read(ten_images)) == 6
            assert len(set(active_children()) - before) == (2 if kept else 0)
    assert len(begun) == (1 if kept else 2)
    assert set(active_children()) <= before
    assert set(waited) == {False}


def fail_within(split: ImageSet) -> None:
    batches = evaluation_batches(split, Transform(SIZE), COMPUTE)
    for _ in batches:
        raise ArithmeticError


def test_workers_of_a_loop_that_failed_keep_no_collection_of_garbage_waiting(ten_images, waited):
    """The traceback holds the batches; nothing is told to end before the two are collected together."""
    before = set(active_children())
    with pytest.raises(ArithmeticError) as raised:
        fail_within(ten_images)
    assert len(set(active_children()) - before) == 2
    error = raised.value
    error.itself = error  # a cycle
    del error, raised
    gc.collect()
    assert set(active_children()) <= before
    assert set(waited) == {False}


def test_no_workers_of_a_loop_that_failed_are_left_where_they_are_kept(ten_images, waited):
    """Here the traceback lives on."""
    before = set(active_children())
    with keep_workers():
        read(ten_images)
        assert len(set(active_children()) - before) == 2
        with pytest.raises(ArithmeticError) as raised:
            fail_within(ten_images)
    assert set(active_children()) <= before
    assert set(waited) == {False}
    assert raised.tb


def test_workers_that_are_busy_are_not_waited_for(ten_images, monkeypatch, waited):
    views, before = extract.images.parts.image_views, set(active_children())

    def forever(path: Path, *arguments: object) -> torch.Tensor:
        return views(path, *arguments) if path in ten_images.images[:2] else signal.pause()

    monkeypatch.setattr(extract.images.parts, "image_views", forever)
    batches = evaluation_batches(ten_images, Transform(SIZE), replace(COMPUTE, batch_size=2))
    next(batches)
    batches.close()
    assert set(active_children()) <= before
    assert set(waited) == {False}


def test_a_lock_that_a_worker_takes_along_is_not_waited_for(ten_images, monkeypatch):
    """Each looks between two parts whether it is to end, which is behind a lock of all processes."""
    me, is_set, set_it, (held, holds) = os.getpid(), Event.is_set, Event.set, os.pipe()

    def forever(event: Event) -> bool:
        if os.getpid() == me:
            return is_set(event)
        with event._cond:
            os.write(holds, b"!")
            return signal.pause()

    def setting(event: Event) -> None:
        assert event._cond.acquire(timeout=5), "a dead process has it"
        event._cond.release()
        set_it(event)

    monkeypatch.setattr(Event, "is_set", forever)
    monkeypatch.setattr(Event, "set", setting)
    workers = Workers(2, waiting=False)
    workers.begin(files_of(ten_images), [range(5), range(5, 10)])
    assert os.read(held, 1) == b"!"
    workers.end()
    os.close(held)
    os.close(holds)


def test_workers_whose_next_parts_do_not_fit_in_a_pipe_end_all_the_same(ten_images, monkeypatch):
    """The thread that hands them over waits for room that no process makes any more."""
    many = replace(files_of(ten_images), seeds=np.full((N, 2**16), 2**62))
    monkeypatch.setattr(extract.images.parts, "image_views", lambda *_: signal.pause())
    workers = Workers(2, waiting=True)
    workers.begin(many, [range(i, i + 1) for i in range(N)])
    workers.end()


def test_a_process_that_was_forked_meanwhile_ends_no_workers(ten_images):
    batches = evaluation_batches(ten_images, Transform(SIZE), COMPUTE)
    next(batches)
    assert ended(*forked(batches.close)) == 0
    assert len(list(batches)) == 2


def test_workers_leave_no_file(ten_images, tmp_path):
    """Each listens at a socket that has a name in a folder for temporary files."""
    code = """
import sys
from pathlib import Path
import made_workers

made_workers.extract.images.workers.available_cores = lambda: 2
assert len(made_workers.read(made_workers.made_split(Path(sys.argv[1])))) == 6
"""
    assert program(code, ten_images, TMPDIR=str(tmp_path)).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_workers_of_others_are_left_alone_and_theirs_leave_ours(ten_images, monkeypatch):
    """torch's handler of processes that end stays, once a loader of the user's has set it."""
    before = signal.getsignal(signal.SIGCHLD)
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)  # as if it were the first
    try:
        others = iter(DataLoader(range(99), num_workers=1, timeout=60, generator=torch.Generator()))
        assert signal.getsignal(signal.SIGCHLD) is not before
        assert next(others) == 0
        assert len(read(ten_images)) == 6
        assert sum(1 for _ in others) == 98
    finally:
        signal.signal(signal.SIGCHLD, before)
    del others
    for thread in threading.enumerate():
        if thread.name == "QueueFeederThread":
            thread.join(60)


def test_loops_that_run_beside_each_other_keep_no_more_workers_than_one(ten_images):
    before = set(active_children())
    with keep_workers():
        for _ in range(3):
            two = [evaluation_batches(ten_images, Transform(SIZE), COMPUTE) for _ in range(2)]
            assert len(list(zip(*two, strict=True))) == 3
            assert len(set(active_children()) - before) == 2
