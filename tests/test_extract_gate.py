"""The gate of workers: on CPUs they decode while training waits for a batch, and read files meanwhile."""

import os
from collections.abc import Callable
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

import extract.images.gate
import extract.images.workers
from extract.device import Compute
from extract.images.batches import evaluation_batches, training_batches
from extract.images.gate import Gate
from extract.images.image_set import ImageSet
from extract.images.parts import Part, prepare
from extract.images.transforms import Transform
from extract.images.workers import Workers, keep_workers

SIZE = 72  # pixels, so that images stay files
CPU = torch.device("cpu")
FORK = get_context("fork")


class Told(Gate):
    """A closed gate that opens when somebody waits; notes what was read and decoded before."""

    def __init__(self, events: list[str]):
        super().__init__(1)
        self.close()
        self.events = events

    def wait(self) -> None:
        self.events.append("wait")
        self.open()


class Closing(Told):
    """The same, which closes again at once."""

    @property
    def is_open(self) -> bool:
        return False


@pytest.fixture
def events(monkeypatch) -> list[str]:
    """The names of files as they are read, and `decode` for each image."""
    noted, read_bytes, decode = [], Path.read_bytes, extract.images.image_set.decode_image

    def reading(path: Path) -> bytes:
        noted.append(path.name)
        return read_bytes(path)

    def decoding(*args):
        noted.append("decode")
        return decode(*args)

    monkeypatch.setattr(Path, "read_bytes", reading)
    monkeypatch.setattr(extract.images.image_set, "decode_image", decoding)
    return noted


def part_of(paths: list[Path]) -> Part:
    return Part(paths, [[seed] for seed in range(len(paths))], [None] * len(paths), Transform(SIZE))


def test_files_are_read_before_a_closed_gate_and_decoded_behind_it(ten_images, events):
    paths = list(ten_images.images[:3])
    expected = prepare(part_of(paths))
    names = [path.name for path in paths]
    assert events == [word for name in names for word in (name, "decode")]
    events.clear()
    assert torch.equal(prepare(part_of(paths), Told(events)), expected)
    assert events == [*names, "wait", "decode", "decode", "decode"]


def test_a_gate_that_closes_between_images_is_waited_at(ten_images, events):
    """What was read the first time is not read again."""
    paths = list(ten_images.images[:3])
    expected = prepare(part_of(paths))
    events.clear()
    assert torch.equal(prepare(part_of(paths), Closing(events)), expected)
    assert events == [*(path.name for path in paths), *["wait", "decode"] * 3]


@pytest.mark.parametrize("content", [None, b"no image"])
def test_bad_files_are_told_in_the_order_of_images_behind_a_gate_too(ten_images, tmp_path, events, content):
    bad = [tmp_path / "b.png", tmp_path / "a.png"]
    if content is not None:
        for path in bad:
            path.write_bytes(content)
    part = part_of([ten_images.images[0], *bad])
    assert prepare(part, Told(events)) == prepare(part)
    assert "b.png" in prepare(part)


def test_a_worker_waits_until_the_gate_is_opened():
    gate, opened = Gate(1), FORK.Value("b", 0)
    mine, of_worker = FORK.Pipe()

    def work() -> None:
        for _ in range(3):
            of_worker.send("here")
            gate.wait()
            of_worker.send(opened.value)
            of_worker.recv()

    gate.close()
    process = FORK.Process(target=work)
    process.start()
    for _ in range(3):
        assert mine.recv() == "here"
        opened.value = 1
        gate.open()
        assert mine.recv() == 1
        opened.value = 0
        gate.close()
        mine.send("go on")
    process.join()
    assert process.exitcode == 0


def test_an_open_gate_holds_nobody_up():
    gate = Gate(2)
    assert gate.is_open
    gate.wait()
    gate.close()
    assert not gate.is_open
    gate.open()
    gate.wait()
    gate.wait()


@pytest.mark.parametrize("sign", ["parent_process", "getppid"])
def test_a_worker_ends_with_the_process_that_it_works_for(monkeypatch, sign):
    """One sign is enough: each is blind in some cases."""
    monkeypatch.setattr(extract.images.gate, "LOOK", 0.05)
    if sign == "getppid":
        monkeypatch.setattr(extract.images.gate, "parent_process", lambda: None)
    else:
        monkeypatch.setattr(os, "getppid", lambda: 1)
    reader, writer = os.pipe()

    def work(gate: Gate, here: Connection) -> None:
        monkeypatch.setattr(gate._woken, "acquire", telling(gate._woken.acquire, here))
        gate.wait()
        os.write(writer, b"passed")

    def telling(acquire: Callable, here: Connection) -> Callable:
        return lambda timeout: (here.send("waits"), acquire(timeout=timeout))

    def own() -> None:
        gate, (mine, here) = Gate(1), FORK.Pipe()
        gate.close()
        FORK.Process(target=work, args=(gate, here)).start()
        assert mine.recv() == "waits"
        os._exit(0)  # without a word to its worker

    process = FORK.Process(target=own)
    process.start()
    os.close(writer)
    with open(reader, "rb") as passed:
        assert passed.read() == b"passed"
    process.join()
    assert process.exitcode == 0


def test_a_waiting_worker_reads_a_few_files_ahead_at_a_time(ten_images, events, monkeypatch):
    """Enough for one file: each is read when the gate closes in front of it, or the next one."""
    monkeypatch.setattr(extract.images.parts, "AHEAD", 1)
    paths = list(ten_images.images[:3])
    expected = prepare(part_of(paths))
    events.clear()
    assert torch.equal(prepare(part_of(paths), Closing(events)), expected)
    assert events == [word for path in paths for word in (path.name, "wait", "decode")]


@pytest.fixture
def gates(monkeypatch) -> list[Gate]:
    """The gates of all workers that are started; two cores."""
    found, start = [], Workers.__init__

    def starting(self: Workers, *args, **options) -> None:
        start(self, *args, **options)
        found.append(self.gate)

    monkeypatch.setattr(Workers, "__init__", starting)
    monkeypatch.setattr(extract.images.workers, "available_cores", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    return found


def batches(split: ImageSet, workers: int, batch_size: int = 4):
    generator = torch.Generator().manual_seed(0)
    compute = Compute(CPU, "fp32", batch_size, workers)
    return training_batches(split, Transform(SIZE), generator, compute)


@pytest.mark.parametrize("batch_size", [3, 4, 5, 16])
def test_the_gate_is_closed_during_each_step_and_open_afterwards(ten_images, gates, batch_size):
    with keep_workers():
        closed = [not gates[0].is_open for _ in batches(ten_images, 2, batch_size)]
        assert closed == [True] * -(-10 // batch_size)
        assert gates[0].is_open
        compute = Compute(CPU, "fp32", batch_size, workers=2)
        assert all(gates[0].is_open for _ in evaluation_batches(ten_images, Transform(SIZE), compute))
    assert len(gates) == 1


def test_a_step_that_ends_with_an_error_leaves_no_worker_in_front_of_a_gate(ten_images, gates):
    taken, before = batches(ten_images, 2), set(active_children())
    next(taken)
    assert not gates[0].is_open
    assert len(set(active_children()) - before) == 2
    taken.close()
    assert set(active_children()) <= before


@pytest.mark.parametrize(("threads", "cores"), [(1, 2), (2, 3), (1, 1)])
def test_workers_are_not_held_up_where_no_thread_waits_for_another(
    ten_images, gates, monkeypatch, threads, cores
):
    """A core is free for them, or there is one thread that nobody waits for."""
    monkeypatch.setattr(extract.images.workers, "available_cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert all(gates[0].is_open for _ in batches(ten_images, 2))
