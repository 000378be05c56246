"""Choosing devices on a machine with two simulated GPUs: only torch's answers are faked."""

from types import SimpleNamespace

import pytest
import torch
from bad_input import refuse, succeed
from torch.nn.functional import conv2d

from extract.config import DatasetConfig, NetworkConfig
from extract.device import make_deterministic, resolve_device, use_device
from extract.torchrun.device import device_of_rank
from finetune.forecast.config import ForecastConfig
from finetune.forecast.finetune_throughput import Pace
from finetune.forecast.forecast import forecast
from finetune.forecast.workload import find_workload


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The devices that were made current, in order."""
    used = [torch.device("cuda:0")]

    def set_device(device: torch.device) -> None:
        if device.index is None:
            raise ValueError("Expected a torch.device with a specified index")  # as torch does
        used.append(device)

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.current_device", lambda: used[-1].index)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: len(used) > 1)
    monkeypatch.setattr("torch.cuda.set_device", set_device)
    return used


@pytest.mark.parametrize(("name", "number"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_gpu_has_its_number_and_becomes_the_current_one(two_gpus, name, number):
    device = resolve_device(name)
    assert (device.type, device.index) == ("cuda", number)
    assert use_device(device) is device
    assert two_gpus[1:] == [torch.device("cuda", number)]


def test_the_gpu_that_a_process_chose_stays_its_own(two_gpus):
    torch.cuda.set_device(torch.device("cuda:1"))
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda:1")


def test_the_cpu_is_used_without_asking_for_a_gpu(two_gpus):
    assert use_device(resolve_device("cpu")) == torch.device("cpu")
    assert len(two_gpus) == 1


def test_a_gpu_that_is_not_there_is_refused(two_gpus, small_ckpt, in_tmp_path):
    refuse("evaluate", "--ckpt", small_ckpt, "--device", "cuda:2", says=["cuda:2", "has 2 CUDA devices"])


@pytest.mark.parametrize(
    ("name", "local_rank", "expected"),
    [
        ("auto", None, "cuda:0"),
        ("cuda", None, "cuda:0"),
        ("auto", "1", "cuda:1"),
        ("cuda", "1", "cuda:1"),
        ("cuda", "2", "cuda:0"),
        ("cuda:1", "0", "cuda:1"),
        ("cpu", "1", "cpu"),
    ],
)
def test_processes_take_a_gpu_each(two_gpus, monkeypatch, name, local_rank, expected):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert device_of_rank(name) == torch.device(expected)


def test_a_plan_is_measured_on_the_gpu_that_is_named(two_gpus, monkeypatch, quiet):
    """Made-up features are on it, and steps are recorded on it."""
    measured = []

    def pace(lengths, class_counts, map_dtype, device, seconds) -> Pace:
        measured.append((device, two_gpus[-1]))
        return Pace(1.0, 1.0)

    choice = SimpleNamespace(dtype="float16", maps=SimpleNamespace(shape=(2, 3)))
    found = SimpleNamespace(sizes={"train": {"N": 2}}, class_counts=(1, 1), choices=[choice], disk=None)
    monkeypatch.setattr("finetune.forecast.forecast.forecast_extraction", lambda *_: found)
    monkeypatch.setattr("finetune.forecast.forecast.measure_pace", pace)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (2**31 + 12, 2**40))
    (run,) = forecast(ForecastConfig(device="cuda:1"), quiet).finetuning
    second = torch.device("cuda:1")
    assert measured == [(second, second)]
    assert run.in_memory  # 12 bytes, all that a GPU has beyond its reserve
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (2**31 + 11, 2**40))
    for of_host, holds in ((24, True), (23, False)):  # maps may take half of it
        monkeypatch.setattr("finetune.loading.residency.available_memory", lambda n=of_host: n)
        (run,) = forecast(ForecastConfig(device="cuda:1"), quiet).finetuning
        assert run.in_memory == holds


@pytest.fixture
def gpus_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One GPU whose random state must not be read, since that would initialise it."""

    def start(*_: object) -> None:
        raise AssertionError("a GPU was started")

    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_rng_state", start)


def test_training_on_the_cpu_starts_no_gpu(gpus_left_alone, small_root, tmp_path):
    options = ["--dataset", "imagefolder", "--image-size", 16, "--arch", "resnet8", "--width", 4]
    options += ["--epochs", 1, "--batch-size", 8, "--device", "cpu", "--root", small_root]
    succeed("train", *options, "--out", tmp_path / "run")


def test_planning_starts_no_gpu(gpus_left_alone, quiet):
    config = ForecastConfig(network=NetworkConfig("resnet8", width=4), dataset=DatasetConfig("digits"))
    assert find_workload(config, quiet).arch == "resnet8"


def test_float32_is_whole_whatever_was_set_before():
    try:
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("medium")
        make_deterministic()
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        make_deterministic()


@pytest.mark.cuda
def test_products_and_convolutions_on_a_gpu_are_of_float32():
    """TensorFloat-32 keeps 11 bits of a factor, so 1 + 2⁻¹² would be 1."""
    make_deterministic()
    device = torch.device("cuda", 0)
    x = torch.full((64, 64), 1 + 2.0**-12, device=device)
    assert torch.equal(x @ torch.eye(64, device=device), x)
    image = torch.full((1, 32, 8, 8), 1 + 2.0**-12, device=device)
    one = torch.eye(32, device=device)[:, :, None, None]
    torch.testing.assert_close(conv2d(image, one), image, rtol=2**-20, atol=0)
