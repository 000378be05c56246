"""How functions of `tailcache` restore the caller's process settings, and report errors."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from types import FrameType
from typing import Any

import pytest
import torch
from bad_input import refuse

import tailcache as tc
from extract.device import float32_precisions
from finetune.heads.threads import SWITCH
from finetune.settings import Borrowed
from finetune.training.head_pool import HeadPool

FAST = {"iterations": 3, "eval_every": 3, "device": "cpu", "method": "crt"}
WAIT = 600  # seconds
pytestmark = pytest.mark.usefixtures("in_tmp_path")


def of_the_process() -> tuple[Any, ...]:
    cudnn = torch.backends.cudnn
    flags = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)
    return sys.getswitchinterval(), flags, torch.get_float32_matmul_precision()


def of_a_thread() -> tuple[int, bool]:
    return torch.get_num_threads(), (torch.tensor([1e-40]) * 1).item() == 0


def of_a_new_thread() -> tuple[int, bool]:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(of_a_thread).result()


def chosen_precisions() -> list[str]:
    return [one.fp32_precision for one in float32_precisions()]


@pytest.fixture
def no_precision_chosen() -> Iterator[None]:
    """Whatever tests before this one have set."""
    before = chosen_precisions()
    for one in float32_precisions():
        one.fp32_precision = "none"
    yield
    for one, precision in zip(float32_precisions(), before, strict=True):
        one.fp32_precision = precision


@pytest.fixture
def odd_settings() -> Iterator[None]:
    """Neither the defaults nor a run's; 38 µs would be 37 once read and set again."""
    before, n_threads = of_the_process(), torch.get_num_threads()
    cudnn = torch.backends.cudnn

    def set_all(interval: float, flags: tuple[bool, ...], precision: str, n_threads: int) -> None:
        sys.setswitchinterval(interval)
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = flags
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(n_threads)

    set_all(38.5e-6, (False, True, True), "high", 3)
    yield
    set_all(*before, n_threads)


@pytest.mark.parametrize("fails", [False, True])
def test_runs_that_overlap_give_the_settings_back(feature_store, odd_settings, monkeypatch, fails):
    """The second starts during the first and ends after it: the other order is easy."""
    first_is_in, second_is_in, first_has_ended = (threading.Event() for _ in range(3))
    train_on, during, after = HeadPool.train_on, [], {}

    def meeting(*args):
        if threading.current_thread().name == "first":
            first_is_in.set()
            assert second_is_in.wait(WAIT)
            if fails:
                raise OSError("the disk is gone")
        else:
            second_is_in.set()
            assert first_has_ended.wait(WAIT)
            during.extend([of_the_process(), of_a_thread(), of_a_new_thread()[0]])
        return train_on(*args)

    def run() -> None:
        name = threading.current_thread().name
        after[name] = [of_a_thread()]
        if fails and name == "first":
            with pytest.raises(tc.UserError, match="the disk is gone"):
                tc.finetune(feature_store, **FAST)
        else:
            tc.finetune(feature_store, **FAST)
        after[name].append(of_a_thread())

    monkeypatch.setattr(HeadPool, "train_on", meeting)
    before, (first, second) = (
        of_the_process(),
        (threading.Thread(target=run, name=n) for n in ("first", "second")),
    )
    first.start()
    assert first_is_in.wait(WAIT)
    second.start()
    first.join(WAIT)
    assert during == []
    first_has_ended.set()
    second.join(WAIT)
    assert during == [(pytest.approx(SWITCH), (True, False, False), "highest"), (1, True), 3]
    assert of_the_process() == before
    assert [of_a_thread(), of_a_new_thread()] == [(3, False)] * 2
    assert after == {"first": [(3, False)] * 2, "second": [(3, False)] * 2}


@pytest.mark.parametrize(
    ("place", "precision"),
    [
        ("backends", "tf32"),
        ("backends.cudnn", "tf32"),
        ("backends.cuda.matmul", "tf32"),
        ("backends.mkldnn.matmul", "bf16"),
    ],
)
def test_a_precision_of_float32_that_the_caller_chose(
    feature_store, no_precision_chosen, monkeypatch, place, precision
):
    """Where torch keeps it since 2.9; its older settings cannot be read then."""
    if not float32_precisions():
        pytest.skip("torch before 2.9 has no such settings")
    train_on, during = HeadPool.train_on, []

    def watched(*args):
        during.append(chosen_precisions())
        return train_on(*args)

    monkeypatch.setattr(HeadPool, "train_on", watched)
    attrgetter(place)(torch).fp32_precision = precision
    before = chosen_precisions()
    tc.finetune(feature_store, **FAST)
    assert {one for found in during for one in found} == {"ieee"}
    assert chosen_precisions() == before
    assert precision in before


def test_settings_that_ctrl_c_stopped_from_being_borrowed_are_free():
    """It may come between any two lines, of which one counts the users, while no lock is held."""
    value, n_lines = {"x": 1}, 0

    def interrupt_at(wanted: int) -> Callable:
        def trace(frame: FrameType, event: str, _: object) -> Callable | None:
            nonlocal n_lines
            if frame.f_code.co_name != "borrowed":
                return None
            if event == "line" and not settings._lock.locked():
                n_lines += 1
                if n_lines == wanted:
                    raise KeyboardInterrupt
            return trace

        return trace

    for wanted in range(1, 20):
        n_lines, settings = 0, Borrowed(lambda: value["x"], lambda x: value.update(x=x))
        try:
            sys.settrace(interrupt_at(wanted))
            with settings.borrowed():
                sys.settrace(None)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        with settings.borrowed():
            value["x"] = 2
        assert value["x"] == 1
        if n_lines < wanted:  # no line is left
            break
    assert wanted > 2


@pytest.mark.parametrize("chosen", [None, 0, 1])
def test_the_current_gpu_is_the_callers_again(monkeypatch, chosen):
    """On a machine with two fake GPUs; None is a process that has used none."""
    from finetune.settings import current_gpu_kept

    used = [] if chosen is None else [chosen]
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: bool(used))
    monkeypatch.setattr("torch.cuda.current_device", lambda: used[-1])
    monkeypatch.setattr("torch.cuda.set_device", lambda device: used.append(device.index))
    with current_gpu_kept():
        pass
    assert used == ([] if chosen is None else [chosen])
    with current_gpu_kept():
        torch.cuda.set_device(torch.device("cuda:1"))
    assert used[-1] == (chosen or 0)


ERRORS = {
    "disk is full": OSError(28, "No space left on device", "r/head.pt"),
    "without a file": OSError("unable to\n  write"),
    "no right": PermissionError(13, "Permission denied", "/root/r"),
    "memory": MemoryError("Unable to allocate 3.00 GiB for an array"),
    "memory of torch": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    "memory of a GPU": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
}


def failing(error: Exception) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("name", ERRORS)
def test_what_fails_is_told_as_by_the_command_line(feature_store, monkeypatch, name):
    monkeypatch.setattr("finetune.train._train_and_evaluate", failing(ERRORS[name]))
    quick = [f"--{option.replace('_', '-')}={value}" for option, value in FAST.items()]
    line = refuse("finetune", "--store", feature_store, "--out", "r", *quick, says=[])
    for out in (None, "r"):
        with pytest.raises(tc.UserError) as told:
            tc.finetune(feature_store, out=out, **FAST)
        assert line == f"tailcache: {told.value}"
        assert told.value.__cause__ is ERRORS[name]


@pytest.mark.parametrize(
    ("name", "does", "arguments"),
    [
        ("open_store", "FeatureStore", ["s.zarr"]),
        ("train", "run_train", []),
        ("extract", "early.check_extraction", ["c.pt", "s.zarr"]),
        ("finetune", "early.check_finetuning", ["s.zarr"]),
        ("sweep", "early.check_sweep", ["s.zarr"]),
        ("read_run", "run_at", ["r"]),
        ("compare", "run_at", ["r"]),
        ("load_network", "load_checkpoint", ["c.pt"]),
    ],
)
def test_every_function_tells_of_a_full_disk_and_hides_no_bug(monkeypatch, name, does, arguments):
    call, options = getattr(tc, name), {"out": "r"} if name in ("train", "sweep") else {}
    monkeypatch.setattr(f"finetune.api.{does}", failing(ERRORS["disk is full"]))
    with pytest.raises(tc.UserError, match=r"^r/head\.pt: No space left on device$"):
        call(*arguments, **options)
    for bug in (RuntimeError("mat1 and mat2 shapes"), ZeroDivisionError(), KeyError("x")):
        monkeypatch.setattr(f"finetune.api.{does}", failing(bug))
        with pytest.raises(type(bug)) as raised:
            call(*arguments, **options)
        assert raised.value is bug
