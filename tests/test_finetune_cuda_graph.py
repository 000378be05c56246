"""Recorded steps, with a fake recorder: the rest needs a GPU."""

import gc
import weakref
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from finetune.heads import cuda_graph as graph
from finetune.heads.cuda_graph import RECORDING, RecordedSteps, record_on_gpu, recorded_on
from finetune.heads.losses import Loss, focal
from finetune.heads.options import HeadOptions
from finetune.heads.row_terms import SecondLabel
from finetune.heads.stacked import StackedHeads, padded
from finetune.heads.threads import Threads
from finetune.loading.features import Features
from finetune.loading.window import Window, WindowMaker
from finetune.sampling.plan import Plan
from finetune.training.head_pool import HeadPool

CPU = torch.device("cpu")
COSINE = {"schedule": "cosine", "n_iterations": 15}


class Recorder:
    """A stand-in for a GPU: repeats the work itself; counts recordings and replays."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def __call__(self, work):
        self.recorded += 1
        work()

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


def options(n: int = 3, **changed) -> list[HeadOptions]:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(n, 5, 7)).astype(np.float32)
    bias = np.zeros(5, np.float32)
    return [
        HeadOptions(one, bias, focal(1.0), 0.1 / (i + 1), 0.9, 0.01, **changed)
        for i, one in enumerate(weight)
    ]


def windows() -> list[tuple[torch.Tensor, torch.Tensor, int]]:
    """Of 4, 4, 3 and 4 iterations."""
    generator = torch.Generator().manual_seed(0)
    pooled = padded(torch.rand(15, 16, 7, generator=generator))
    label = torch.randint(5, (15, 16), generator=generator)
    return [(pooled[a:b], label[a:b], a) for a, b in ((0, 4), (4, 8), (8, 11), (11, 15))]


def as_window(pooled: torch.Tensor, label: torch.Tensor, start: int) -> Window:
    return Window(start, pooled, label, None)


def assert_same(one: StackedHeads, other: StackedHeads) -> None:
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.velocity, other.velocity)


def test_replayed_steps_are_the_steps():
    record = Recorder()
    plain_heads, recorded = (
        StackedHeads(options(), CPU),
        StackedHeads(options(), CPU, recorded=RecordedSteps(record)),
    )
    for window in windows():
        torch.testing.assert_close(plain_heads.train_on(*window), recorded.train_on(*window), rtol=0, atol=0)
    assert_same(plain_heads, recorded)
    assert (record.recorded, record.replayed) == (2, 4)  # two lengths, four windows


def test_replayed_steps_have_the_second_labels_of_their_own_window():
    """With other labels and shares in each; the losses of a stack are the same too."""
    generator, record = torch.Generator().manual_seed(1), Recorder()
    made = [StackedHeads(options(), CPU), StackedHeads(options(), CPU, recorded=RecordedSteps(record))]
    for pooled, label, start in windows():
        other = torch.randint(5, label.shape, generator=generator)
        share = torch.rand(label.shape, generator=generator, dtype=torch.float64)
        losses = [heads.train_on(pooled, label, start, SecondLabel(other, share)) for heads in made]
        assert torch.equal(*losses)
        once = made[0].train_on(pooled, label, start)  # a step without them, for both
        assert torch.equal(once, made[1].train_on(pooled, label, start))
    assert_same(*made)
    assert record.recorded == 4  # two lengths, with one label and with two


def test_the_windows_given_are_left_alone():
    recorded = StackedHeads(options(), CPU, recorded=RecordedSteps(Recorder()))
    pooled, label, start = windows()[0]
    before = pooled.clone(), label.clone()
    recorded.train_on(pooled, label, start)
    assert torch.equal(before[0], pooled)
    assert torch.equal(before[1], label)


def mixed_stacks(record=None) -> HeadPool:
    """Three stacks: of focal loss, of a plain one, and with a schedule."""
    rest = HeadOptions(np.ones((5, 7), np.float32), np.zeros(5, np.float32), Loss(), 0.1, 0.9)
    with pytest.MonkeyPatch.context() as patch:
        if record is not None:
            patch.setattr("finetune.training.head_pool.recorded_on", lambda device: RecordedSteps(record))
        return HeadPool([*options(2), rest, *options(1, **COSINE)], CPU, Threads(1))


def test_stacks_share_the_memory_of_a_window_and_mix_nothing_up():
    record = Recorder()
    expected, recorded = mixed_stacks(), mixed_stacks(record)
    for window in windows():
        losses = [heads.train_on(as_window(*window)) for heads in (expected, recorded)]
        assert torch.equal(*(of_heads[:, :3] for of_heads in losses))
        torch.testing.assert_close(*losses, rtol=1e-6, atol=0)
    for i, (one, other) in enumerate(zip(expected.layers(), recorded.layers(), strict=True)):
        torch.testing.assert_close(one[0], other[0], rtol=1e-6 * (i == 3), atol=1e-7 * (i == 3))
    assert record.recorded == 6  # three stacks, two lengths
    pooled = {id(own[0]) for own, _ in recorded._recorded._recorded.values()}
    assert len(pooled) == 2
    recorded.free_recordings()
    assert not recorded._recorded._recorded
    assert not recorded._recorded._pooled


def test_nothing_keeps_heads_alive():
    """A cycle would keep graphs and their memory until Python's cycle collector runs."""
    gc.disable()
    try:
        # Like a graph's replay, this keeps no reference to what it recorded.
        stacks = mixed_stacks(lambda work: (work(), lambda: None)[1])
        stacks.train_on(as_window(*windows()[0]))
        ends = [weakref.ref(heads) for heads in stacks._heads] + [weakref.ref(stacks._recorded)]
        del stacks
        assert [end() for end in ends] == [None] * len(ends)
    finally:
        gc.enable()


@pytest.mark.parametrize("on_trial", [True, False])
def test_what_cannot_be_recorded_is_taken_step_by_step_with_a_note(on_trial, caplog):
    def fail(work) -> None:
        if on_trial:
            work()
        raise RuntimeError("CUDA error: operation not permitted\nlonger advice")

    expected, heads = StackedHeads(options(), CPU), StackedHeads(options(), CPU, recorded=RecordedSteps(fail))
    for window in windows():
        assert torch.equal(expected.train_on(*window), heads.train_on(*window))
    assert_same(expected, heads)
    (line,) = caplog.messages
    assert line.endswith("run more slowly: CUDA error: operation not permitted")


def test_a_bug_in_the_steps_is_not_hidden():
    def steps(*_: torch.Tensor) -> None:
        raise ValueError("of the steps")

    with pytest.raises(ValueError, match="of the steps"):
        RecordedSteps(Recorder())(steps, [torch.zeros(1)], [torch.zeros(1)] * 4)


class Stream:
    """A fake stream with a device."""

    def __init__(self, device: torch.device | None = None):
        self.device = device

    def wait_stream(self, other: "Stream") -> None:
        """Do nothing."""


@pytest.fixture
def made_up_cuda(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The parts of torch.cuda that recording uses."""
    seen = SimpleNamespace(current=[], recorded=[])

    def record_in(_, stream: Stream, capture_error_mode: str) -> nullcontext:
        seen.recorded.append((seen.current[-1], stream))
        assert capture_error_mode == "thread_local"
        return nullcontext()

    def current_device(device: torch.device) -> nullcontext:
        seen.current.append(device)
        return nullcontext()

    monkeypatch.setattr(graph, "_streams", {})
    monkeypatch.setattr("torch.cuda.device", current_device)
    monkeypatch.setattr("torch.cuda.Stream", Stream)
    monkeypatch.setattr("torch.cuda.current_stream", Stream)
    monkeypatch.setattr("torch.cuda.stream", nullcontext)
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    monkeypatch.setattr("torch.cuda.CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
    monkeypatch.setattr("torch.cuda.graph", record_in)
    return seen


def test_graphs_are_recorded_on_their_device_by_its_own_stream(made_up_cuda):
    devices = [torch.device("cuda", i) for i in (1, 0, 1)]
    ran = []
    for device in devices:
        recorded_on(device)._record(lambda: ran.append(RECORDING.locked()))
    assert [device for device, _ in made_up_cuda.recorded] == devices
    first, other, again = (stream for _, stream in made_up_cuda.recorded)
    assert [stream.device for stream in (first, other, again)] == devices
    assert first is again
    assert ran == [True] * 6  # the trial run and the recording, while no window is made
    assert not RECORDING.locked()
    assert recorded_on(CPU) is None


def test_no_window_is_made_while_steps_are_recorded():
    """Its plan, which the CPU draws, may be drawn."""
    locked = {}

    def draw(*_: object) -> Plan:
        locked["drawing"] = RECORDING.locked()
        return Plan(np.zeros((2, 3), int), SimpleNamespace(n_samples=1, write=write))

    def write(*_: object) -> None:
        locked["mixing"] = RECORDING.locked()

    features = Features(torch.ones(1, 15), torch.zeros(1, dtype=torch.int64))
    WindowMaker(draw, None, features, None).make((0, 2))
    assert locked == {"drawing": False, "mixing": True}
    assert not RECORDING.locked()


@pytest.mark.cuda
def test_a_cuda_graph_takes_the_same_steps():
    device = torch.device("cuda", 0)
    recorded = StackedHeads(options(), device, recorded=RecordedSteps(partial(record_on_gpu, device=device)))
    eager = StackedHeads(options(), device)
    for pooled, label, start in windows():
        window = pooled.to(device), label.to(device), start
        torch.testing.assert_close(eager.train_on(*window), recorded.train_on(*window), rtol=0, atol=0)
    assert_same(eager, recorded)
    assert len(recorded._recorded._recorded) == 2
