"""Steps whose learning rate, momentum, cuts or strength change, recorded: they are those taken one by one."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from head_oracles import LOSSES, PRIOR
from torch.utils._python_dispatch import TorchDispatchMode

from finetune.config import FinetuneConfig
from finetune.heads.cuda_graph import RecordedSteps, recorded_on
from finetune.heads.differentiated import DIFFERENTIATED
from finetune.heads.losses import isda
from finetune.heads.options import HeadOptions
from finetune.heads.row_terms import SecondLabel
from finetune.heads.scaled import TRAINED, ScaledHead
from finetune.heads.stacked import StackedHeads, padded
from finetune.heads.step_terms import AHEAD, Course
from finetune.methods.registry import METHODS
from finetune.train import finetune

CPU = torch.device("cpu")
STEPS, BATCH, CHANNELS = 14, 12, 7
WINDOWS = ((0, 3), (3, 6), (6, 8), (8, 11), (11, 13), (13, 14))  # of three lengths, in turns
COURSES = {
    "constant": {},
    "cosine": {"schedule": "cosine"},
    "cosine, decay": {"schedule": "cosine", "weight_decay": 0.05},
    "rare cuts": {"max_norm": 1.5, "max_norm_every": 4},
    "all": {"schedule": "cosine", "weight_decay": 0.05, "max_norm": 1.5, "max_norm_every": 3},
}
ALL_LOSSES = LOSSES | {"isda": isda(PRIOR, np.outer(PRIOR, np.linspace(0, 1, CHANNELS)), 0.7, 1.0)}
NEVER = "item lift_fresh local_scalar_dense masked_select nonzero scalar_tensor unique"


class AsOnAGPU(TorchDispatchMode):
    """Refuses what no GPU can record: numbers read back or from the host, shapes that depend on values."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = str(function).removeprefix("aten.").lstrip("_")
        assert not name.startswith(tuple(NEVER.split())), f"{name} cannot be recorded"
        return function(*args, **(kwargs or {}))


def again(work: Callable[[], None]) -> Callable[[], None]:
    """A stand-in for a GPU: a replay does the work again."""
    with AsOnAGPU():
        work()
    return work


def recorder(device: torch.device) -> RecordedSteps:
    return recorded_on(device) or RecordedSteps(again)


def options(loss: str, **more: Any) -> list[HeadOptions]:
    """Two heads that differ in weights, learning rate and weight decay."""
    rng, decay = np.random.default_rng(0), more.pop("weight_decay", 0.0)
    weight, bias = rng.normal(size=(2, 5, CHANNELS)), rng.normal(size=(2, 5))
    return [
        HeadOptions(
            weight[i].astype(np.float32),
            bias[i].astype(np.float32),
            ALL_LOSSES[loss],
            lr=0.1 / (i + 1),
            momentum=0.9,
            weight_decay=decay * (i + 1),
            n_iterations=STEPS,
            **more,
        )
        for i in range(2)
    ]


def windows(device: torch.device) -> Iterator[tuple]:
    """Batches; every other window has rows with two labels."""
    generator = torch.Generator().manual_seed(0)
    pooled = padded(torch.rand(STEPS, BATCH, CHANNELS, generator=generator)).to(device)
    label, other = torch.randint(5, (2, STEPS, BATCH), generator=generator).to(device)
    share = torch.rand(STEPS, BATCH, generator=generator, dtype=torch.float64).to(device)
    for i, (start, stop) in enumerate(WINDOWS):
        second = SecondLabel(other[start:stop], share[start:stop]) if i % 2 else None
        yield pooled[start:stop], label[start:stop], start, second


def assert_same_course(
    one_by_one: StackedHeads | ScaledHead, recorded: StackedHeads | ScaledHead, to_the_bit: bool, two: bool
) -> None:
    """Train both and compare losses, weights and velocities."""
    device = one_by_one.layers()[0][0].device
    near = {"rtol": 1e-6, "atol": 1e-7} if device == CPU else {"rtol": 1e-5, "atol": 1e-6}
    close = {"rtol": 0, "atol": 0} if to_the_bit else near
    for *batches, second in windows(device):
        given = (*batches, second if two else None)
        torch.testing.assert_close(recorded.train_on(*given), one_by_one.train_on(*given), **close)
    for of_one, of_other in zip(one_by_one.state(), recorded.state(), strict=True):
        for name, values in of_one.items():
            torch.testing.assert_close(of_other[name], values, **close)


def check_stacked(loss: str, course: str, device: torch.device) -> None:
    """Where momentum is a number and no weight decays by another rate, the same to the bit."""
    heads, record = options(loss, **COURSES[course]), recorder(device)
    one_by_one, recorded = StackedHeads(heads, device), StackedHeads(heads, device, recorded=record)
    same = course in ("constant", "rare cuts") and loss != "isda"
    assert_same_course(one_by_one, recorded, same, two=loss not in ("isda", "class-balanced-bce"))
    assert len(record._recorded) >= 3  # one for each length


def check_scaled(kind: str, loss: str, course: str, device: torch.device) -> None:
    (head, _), record = options(loss, **COURSES[course], trainable=kind, fc_lr_share=0.3), recorder(device)
    one_by_one, recorded = ScaledHead(head, device), ScaledHead(head, device, record)
    same = device == CPU and course != "cosine, decay"
    assert_same_course(one_by_one, recorded, same, two=loss != "class-balanced-bce")
    assert len(record._recorded) >= 3


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_stacked_heads_of_any_course_are_recorded(loss, course):
    check_stacked(loss, course, CPU)


@pytest.mark.parametrize("course", ["constant", "cosine", "cosine, decay"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", TRAINED)
def test_scaled_heads_of_any_course_are_recorded(kind, loss, course):
    check_scaled(kind, loss, course, CPU)


@pytest.mark.cuda
@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("loss", ["class-balanced by weights", "isda"])
def test_a_gpu_records_stacked_heads_of_any_course(loss, course, caplog):
    check_stacked(loss, course, torch.device("cuda", 0))
    assert caplog.messages == []  # recording did not fail


@pytest.mark.cuda
@pytest.mark.parametrize("course", ["constant", "cosine, decay"])
@pytest.mark.parametrize("kind", TRAINED)
def test_a_gpu_records_scaled_heads_of_any_course(kind, course, caplog):
    check_scaled(kind, "smoothed", course, torch.device("cuda", 0))
    assert caplog.messages == []


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.sampling])
def test_a_run_of_any_method_is_the_same_recorded(feature_store, tmp_path, quiet, monkeypatch, name, caplog):
    config = FinetuneConfig(str(feature_store), str(tmp_path / "plain"), name, iterations=70, eval_every=25)
    config = replace(config, device="cpu", window=20)
    heads = [head_of(finetune(config, quiet).path)]
    recorders = []

    def as_on_a_gpu(device: torch.device) -> RecordedSteps:
        recorders.append(RecordedSteps(lambda work: recorders.append(1) or again(work)))
        return recorders[-1]

    monkeypatch.setattr("finetune.training.head_pool.recorded_on", as_on_a_gpu)
    heads.append(head_of(finetune(replace(config, out=str(tmp_path / "recorded")), quiet).path))
    learned = METHODS[name].trainable in (*DIFFERENTIATED, "weight generator")
    n_recorded = recorders.count(1)
    assert n_recorded == 0 if learned else n_recorded >= 2  # windows of 20 and 5; autograd runs step by step
    assert caplog.messages == []  # recording did not fail
    for of_one, of_other in zip(*heads, strict=True):
        torch.testing.assert_close(of_other, of_one, rtol=1e-5, atol=1e-6)


def head_of(run: Path) -> list[torch.Tensor]:
    held = torch.load(run / "head.pt", weights_only=True)
    return [values for values in held.values() if torch.is_tensor(values)]


@pytest.mark.parametrize("starts", [(0, AHEAD - 2, AHEAD + 6, 3 * AHEAD - 5), (AHEAD + 500, 0, 8)])
def test_a_course_says_the_same_wherever_it_is_asked(starts):
    """Across the ends of what it looks up at once, and from where a run is resumed."""
    (head, _) = options("ce", schedule="cosine", max_norm=1.0, max_norm_every=7)
    head = replace(head, n_iterations=3 * AHEAD)
    course = Course(head, CPU)
    for start in starts:
        n = min(8, head.n_iterations - start)
        shares = [head.share_of_lr(start + i) for i in range(n)]
        assert course.shares(start, n).tolist() == shares
        (table,) = course.recorded(start, n)
        for numbers, row in zip(course.steps(start, n), table, strict=True):
            torch.testing.assert_close(torch.tensor(numbers, dtype=torch.float32), row, rtol=0, atol=0)
        assert [terms.share for terms in course.steps(start, n)] == shares
        assert [terms.is_cut for terms in course.steps(start, n)] == [
            head.is_cut_after(start + i) for i in range(n)
        ]
        for terms, row in zip(course.steps(0, n, table), table, strict=True):
            assert [float(value) for value in terms] == row.tolist()


def test_terms_that_never_change_stay_numbers():
    """Whose steps need one pass over the velocity less, and no cut that cuts nothing."""
    course = Course(options("ce", max_norm=1.0, max_norm_every=2)[0], CPU)
    (terms,) = course.steps(0, 1, *course.recorded(3, 1))
    assert (terms.share, terms.momentum) == (1.0, 0.9)
    assert torch.is_tensor(terms.is_cut)
    assert Course(options("ce", max_norm=1.0)[0], CPU).recorded(3, 1) == []
    cosine = Course(options("ce", schedule="cosine", max_norm=1.0)[0], CPU)
    (terms,) = cosine.steps(0, 1, *cosine.recorded(3, 1))
    assert torch.is_tensor(terms.share)
    assert torch.is_tensor(terms.momentum)
    assert terms.is_cut is True
