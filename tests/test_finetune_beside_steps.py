"""Windows made beside the steps of a GPU: who waits for what, with stand-ins for streams and events."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from finetune.config import FinetuneConfig
from finetune.heads.cuda_graph import RECORDING
from finetune.heads.row_terms import SecondLabel
from finetune.loading import upload
from finetune.loading.features import Features
from finetune.loading.upload import (
    BUFFERS,
    WINDOWS_AHEAD,
    StepsAhead,
    Turns,
    Uploads,
    beside_steps,
    uploads_on,
)
from finetune.loading.window import Window, WindowMaker
from finetune.sampling.plan import Plan
from finetune.train import finetune

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class LateCopies:
    """Copies from buffers that are made when somebody waits for them, or at the very end."""

    def __init__(self):
        self.copied, self._asked = [], []

    def ask(self, buffer: torch.Tensor) -> None:
        self._asked.append(buffer)

    def event(self) -> SimpleNamespace:
        asked, self._asked = self._asked, []

        def copy() -> None:
            self.copied += [buffer.clone() for buffer in asked]
            asked.clear()

        return SimpleNamespace(synchronize=copy)


@pytest.mark.parametrize("n_each", [1, 2, 3])
def test_no_buffer_is_written_before_its_copy_is_complete(n_each):
    """Of windows with one buffer, or with so many that more than two are needed."""
    sizes, copies, events = [], LateCopies(), []
    turns = Turns(lambda n: sizes.append(n) or torch.zeros(n))
    for i in range(12):
        for _ in range(n_each):
            buffer = turns.take(torch.Size([2 + (i > 5), 4]))
            buffer.fill_(i)
            copies.ask(buffer)
        events.append(copies.event())
        turns.read_until(events[-1])
    for event in events:
        event.synchronize()
    assert [copy.unique().tolist() for copy in copies.copied] == [
        [i] for i in range(12) for _ in range(n_each)
    ]
    assert sizes == [8] * max(BUFFERS, n_each) + [12] * max(BUFFERS, n_each)


def test_a_buffer_serves_smaller_shapes_too():
    sizes = []
    turns = Turns(lambda n: sizes.append(n) or torch.zeros(n))
    event = SimpleNamespace(synchronize=lambda: None)
    for shape in ((3, 5), (3, 5), (2, 5), (0, 5), (15, 1)):
        assert turns.take(torch.Size(shape)).shape == shape
        turns.read_until(event)
    assert sizes == [15, 15]


class Stream:
    """A stand-in that writes down what is asked of it."""

    def __init__(self, log: list, name: str):
        self._log, self._name = log, name

    def wait_stream(self, other: "Stream") -> None:
        self._log.append(f"{self._name} waits for {other._name}")

    def wait_event(self, event: str) -> None:
        self._log.append(f"{self._name} waits for {event}")

    def record_event(self) -> str:
        self._log.append(f"event of {self._name}")
        return f"event of {self._name}"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of two streams: that of the steps, and the own one of the windows."""
    found: list[str] = []

    @contextmanager
    def on_stream(stream: Stream) -> Iterator[None]:
        found.append(f"on {stream._name}")
        yield
        found.append(f"off {stream._name}")

    monkeypatch.setattr("torch.cuda.Stream", lambda device: Stream(found, f"own stream of {device}"))
    monkeypatch.setattr("torch.cuda.current_stream", lambda device: Stream(found, "steps"))
    monkeypatch.setattr("torch.cuda.stream", on_stream)
    monkeypatch.setattr(upload, "_of_devices", {})
    return found


def test_windows_come_after_the_past_and_before_the_future(log):
    def steps() -> None:
        log.append("steps and windows")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), beside_steps(GPU):
        steps()
    own = "own stream of cuda:0"
    assert log == [f"{own} waits for steps", "steps and windows", f"steps waits for {own}"]
    assert uploads_on(GPU) is uploads_on(GPU) is not uploads_on(torch.device("cuda", 1))


def test_a_cpu_has_no_stream(log):
    assert uploads_on(CPU) is None
    with beside_steps(CPU):
        window = Window(0, torch.zeros(1), torch.zeros(1), Plan(np.zeros((1, 1))))
        window.arrive()
    assert log == []


def test_a_window_is_made_on_its_own_stream_and_sent_while_nothing_is_recorded(log, monkeypatch):
    """Its plan is drawn there too, since a GPU may draw it."""

    def write(*_: object) -> None:
        log.append("mixing")

    uploads = Uploads(GPU)
    monkeypatch.setitem(upload._of_devices, CPU, uploads)
    monkeypatch.setattr(
        uploads.buffers, "read_until", lambda event: log.append(f"read until {event}: {RECORDING.locked()}")
    )
    mix = SimpleNamespace(n_samples=1, write=write)
    draw = lambda *_: log.append("drawing") or Plan(np.zeros((2, 3), int), mix)  # noqa: E731
    features = Features(torch.ones(1, 15), torch.zeros(1, dtype=torch.int64))
    window = WindowMaker(draw, None, features, None).make((4, 6))
    own, sent = "own stream of cuda:0", "event of own stream of cuda:0"
    assert log == [f"on {own}", "drawing", "mixing", sent, f"read until {sent}: True", f"off {own}"]
    assert (window.start, window.sent) == (4, sent)


class Tensor:
    """A stand-in for a tensor on a GPU."""

    device = GPU

    def __init__(self, log: list[str], name: str):
        self._log, self._name = log, name

    def record_stream(self, stream: Stream) -> None:
        self._log.append(f"{self._name} used by {stream._name}")


@pytest.mark.parametrize("two_labels", [False, True])
def test_steps_wait_for_a_window_and_keep_its_memory(log, two_labels):
    tensors = [Tensor(log, name) for name in ("pooled", "label", "second label", "share")]
    second = SecondLabel(*tensors[2:]) if two_labels else None
    Window(0, *tensors[:2], Plan(np.zeros((1, 1))), second, "the event").arrive()
    used = [f"{tensor._name} used by steps" for tensor in (tensors if two_labels else tensors[:2])]
    assert log == ["steps waits for the event", *used]


def test_no_more_than_a_few_windows_wait_in_the_memory_of_a_gpu(monkeypatch):
    log, numbers = [], iter(range(9))

    def record_event() -> SimpleNamespace:
        i = next(numbers)
        return SimpleNamespace(synchronize=lambda: log.append(f"waited for {i}"))

    monkeypatch.setattr("torch.cuda.current_stream", lambda _: SimpleNamespace(record_event=record_event))
    ahead = StepsAhead(GPU)
    for i in range(5):
        log.append(f"asked for {i}")
        ahead.asked()
    expected = [[f"asked for {i}", f"waited for {i - WINDOWS_AHEAD}"] for i in range(5)]
    assert log == [line for lines in expected for line in lines if not line.startswith("waited for -")]
    StepsAhead(CPU).asked()
    assert next(numbers) == 5  # a CPU has no events


class Late(Uploads):
    """A stand-in on a CPU: buffers hold NaN when they are taken, and steps must ask for each window."""

    def __init__(self, log: list[str]):
        self.sizes = []
        self._device, self._stream = CPU, Stream(log, "own stream")
        self.buffers = Turns(self._allocate)
        take = self.buffers.take
        self.buffers.take = lambda shape: take(shape).fill_(torch.nan)

    def _allocate(self, n: int) -> torch.Tensor:
        self.sizes.append(n)
        return torch.empty(n)

    def sent(self) -> SimpleNamespace:
        event = SimpleNamespace(synchronize=lambda: None)
        self.buffers.read_until(event)
        return event


@pytest.mark.parametrize("more", [{}, {"sampling": "uniform", "mix_share": 0.4}], ids=["default", "more"])
@pytest.mark.parametrize("residency", ["host", "stream"])
def test_a_run_through_buffers_is_the_same_run(
    feature_store, tmp_path, quiet, monkeypatch, log, residency, more
):
    config = FinetuneConfig(str(feature_store), str(tmp_path / "plain"), iterations=50, device="cpu", **more)
    config = replace(config, residency=residency, window=8)
    finetune(config, quiet)
    uploads, waited, asked = Late(log), [], []
    monkeypatch.setattr(StepsAhead, "asked", lambda self: asked.append(len(waited)))
    monkeypatch.setitem(upload._of_devices, CPU, uploads)
    monkeypatch.setattr("finetune.loading.window.arrive", lambda event, tensors: waited.append(event))
    finetune(replace(config, out=str(tmp_path / "buffered")), quiet)
    for name in ("head.pt", "metrics.csv", "per_class.csv"):
        assert (tmp_path / "buffered" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert len(uploads.sizes) >= BUFFERS
    assert more or len(uploads.sizes) <= 2 * BUFFERS  # of the windows, and of samples that are only looked at
    assert asked == list(range(len(waited) - 6, len(waited) + 1))  # seven windows, waited for at last
    assert None not in waited
    assert log[0] == "own stream waits for steps"
    assert log[-1] == "steps waits for own stream"


def busy(device: torch.device) -> Callable[[], None]:
    """Gives the current stream of a GPU some milliseconds of work."""
    square = torch.rand(4096, 4096, device=device)

    def work() -> None:
        square.copy_((square @ square).tanh())

    return work


@pytest.mark.cuda
def test_pinned_buffers_of_a_gpu_are_read_before_they_are_written_again():
    uploads, found, work = Uploads(GPU), [], busy(GPU)
    with uploads.own_stream():
        for i in range(30):
            work()  # the copies lag behind
            buffer = uploads.buffers.take(torch.Size([1024, 1024])).fill_(i)
            assert buffer.is_pinned()
            found.append(torch.empty(1024, 1024, device=GPU).copy_(buffer, non_blocking=True))
            uploads.sent()
    torch.cuda.synchronize()
    assert [(int(there.min()), int(there.max())) for there in found] == [(i, i) for i in range(30)]


@pytest.mark.cuda
def test_windows_made_beside_the_steps_of_a_gpu_are_those_of_the_host():
    generator, work = torch.Generator().manual_seed(0), busy(GPU)
    features = Features(
        torch.rand(500, 2047, generator=generator), torch.randint(9, (500,), generator=generator)
    )
    there = Features(features.pooled.to(GPU), features.label.to(GPU))
    row = np.random.default_rng(0).integers(500, size=(40, 8, 64))
    makers = [WindowMaker(lambda _, i, __: Plan(row[i]), None, of, None) for of in (features, there)]
    with beside_steps(GPU):
        for i in range(40):
            work()
            expected, window = (maker.make((i, i + 1)) for maker in makers)
            window.arrive()
            summed = window.pooled.double().sum((1, 2))
            assert torch.equal(window.label.cpu(), expected.label)
            torch.testing.assert_close(summed.cpu(), expected.pooled.double().sum((1, 2)))
