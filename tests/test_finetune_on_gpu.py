"""What must hold on a GPU: tested on the CPU as far as possible, and on a GPU if there is one."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import torch

from extract.checkpoints.checkpoint import load_checkpoint
from extract.config import DatasetConfig, NetworkConfig, TrainConfig
from extract.device import make_deterministic
from extract.train import train
from finetune.config import FinetuneConfig
from finetune.heads import stacked
from finetune.heads.cuda_graph import RECORDING, RecordedSteps, recorded_on
from finetune.heads.losses import (
    Loss,
    balanced_softmax,
    class_balanced,
    class_balanced_binary,
    focal,
    isda,
    re_weighted,
)
from finetune.heads.options import HeadOptions
from finetune.heads.stacked import StackedHeads, padded
from finetune.mixing.fusion import fuse
from finetune.train import finetune

CHANNELS, BATCH = 64, 32
LOSSES: dict[str, Callable[[np.ndarray], Loss]] = {
    "cross-entropy": lambda prior: Loss(),
    "balanced-softmax": lambda prior: balanced_softmax(prior, 1.5),
    "class-balanced": lambda prior: class_balanced(prior, 5000, 0.999, False),
    "class-balanced, divided by weights": lambda prior: class_balanced(prior, 5000, 0.999, True),
    "focal": lambda prior: focal(2.0),
    "re-weighted": lambda prior: re_weighted(prior, 1.2),
    "smoothed": lambda prior: Loss(smoothing=(0.4 * prior / prior.max()).astype(np.float32)),
    "isda": lambda prior: isda(prior, np.outer(prior, np.linspace(0, 1, CHANNELS)), 0.7, 1.0),
    "binary": lambda prior: class_balanced_binary(prior, 5000, 0.999),
}


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=pytest.mark.cuda)])
def device(request) -> torch.device:
    make_deterministic()
    return torch.device(request.param)


def recorder(device: torch.device) -> RecordedSteps:
    """The recorder of a GPU, or one that repeats the work itself."""
    return recorded_on(device) or RecordedSteps(lambda work: (work(), work)[1])


def made_heads(
    device: torch.device, n_classes: int, loss: str, recorded: RecordedSteps | None = None, **changed
) -> StackedHeads:
    """Two heads that differ in learning rate."""
    rng = np.random.default_rng(0)
    prior = rng.dirichlet(np.ones(n_classes)).clip(1e-5)
    weight = (rng.normal(size=(n_classes, CHANNELS)) / 8).astype(np.float32)
    bias = rng.normal(size=n_classes).astype(np.float32)
    made = LOSSES[loss](prior / prior.sum())
    options = [HeadOptions(weight, bias, made, lr, 0.9, **changed) for lr in (0.1, 0.01)]
    return StackedHeads(options, device, recorded=recorded)


def windows(device: torch.device, n_classes: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """Of 8, 8 and 4 iterations."""
    generator = torch.Generator().manual_seed(0)
    pooled = padded(torch.rand(20, BATCH, CHANNELS, generator=generator)).to(device)
    label = torch.randint(n_classes, (20, BATCH), generator=generator).to(device)
    return iter([(pooled[a:b], label[a:b], a) for a, b in ((0, 8), (8, 16), (16, 20))])


@pytest.mark.parametrize("n_classes", [10, 1000])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("changed", [{}, {"weight_decay": 0.01, "max_norm": 1.0}], ids=["plain", "bounded"])
def test_recorded_steps_are_the_steps(device, n_classes, loss, changed, caplog):
    recorded = made_heads(device, n_classes, loss, recorder(device), **changed)
    eager = made_heads(device, n_classes, loss, **changed)
    # Of isda, recorded steps have products of other shapes; its strength is twenty times as large here.
    close = {"rtol": 1e-4, "atol": 1e-4} if loss == "isda" else {"rtol": 0, "atol": 0}
    for window in windows(device, n_classes):
        torch.testing.assert_close(eager.train_on(*window), recorded.train_on(*window), **close)
    torch.testing.assert_close(eager.weight, recorded.weight, **close)
    torch.testing.assert_close(eager.velocity, recorded.velocity, **close)
    assert caplog.messages == []  # recording did not fail


@pytest.mark.parametrize("n_classes", [10, 1000])
@pytest.mark.parametrize("loss", LOSSES)
def test_logits_laid_out_as_on_a_gpu_give_the_same_steps(n_classes, loss, monkeypatch):
    cpu = torch.device("cpu")
    by_class = made_heads(cpu, n_classes, loss)
    of_by_class = [by_class.train_on(*window) for window in windows(cpu, n_classes)]
    monkeypatch.setattr(stacked, "classes_innermost", lambda _: True)
    by_row = made_heads(cpu, n_classes, loss)
    for window, expected in zip(windows(cpu, n_classes), of_by_class, strict=True):
        torch.testing.assert_close(by_row.train_on(*window), expected, rtol=1e-5, atol=1e-6)
    assert by_row._buffers.logits.stride(1) == 1
    torch.testing.assert_close(by_row.weight, by_class.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.cuda
@pytest.mark.parametrize("n_classes", [10, 1000])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_gpu_takes_the_steps_of_a_cpu_but_for_rounding(n_classes, loss):
    make_deterministic()
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    here, there = made_heads(cpu, n_classes, loss), made_heads(gpu, n_classes, loss, recorded_on(gpu))
    for of_cpu, of_gpu in zip(windows(cpu, n_classes), windows(gpu, n_classes), strict=True):
        on_gpu = there.train_on(*of_gpu).cpu()
        torch.testing.assert_close(here.train_on(*of_cpu), on_gpu, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(here.weight, there.weight.cpu(), rtol=1e-4, atol=1e-5)


def test_steps_are_recorded_while_a_thread_makes_windows(device):
    """The thread copies to the device and gathers there, as when windows are made."""
    source, rows = torch.rand(4096, 256, generator=torch.Generator().manual_seed(0)), torch.arange(4096)
    on_device, going, enough, wrong = source.to(device), Event(), Event(), []

    def make() -> None:
        while not enough.wait(1e-3):  # like the queue of windows, it lets a recording happen
            with RECORDING:
                made = on_device[rows.to(device)] + source.to(device, non_blocking=True)
                if not torch.equal(made.cpu(), 2 * source):
                    wrong.append(made)
            going.set()

    maker = Thread(target=make)
    maker.start()
    try:
        assert going.wait(60)
        for n_classes in (10, 100):
            recorded = made_heads(device, n_classes, "focal", recorder(device))
            eager = made_heads(device, n_classes, "focal")
            for window in windows(device, n_classes):
                assert torch.equal(eager.train_on(*window), recorded.train_on(*window))
    finally:
        enough.set()
        maker.join()
    assert wrong == []


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n_vectors", [16, 49])
def test_fusion_is_that_of_the_host_and_near_the_exact_mean(device, dtype, index, n_vectors):
    generator = torch.Generator().manual_seed(0)
    table = (4 * torch.rand(1000, 96, generator=generator)).to(dtype)
    vectors = torch.randint(len(table), (8, 48, n_vectors), generator=generator).to(index)
    fused = fuse(table.to(device), vectors.to(device)).cpu()
    exact = table.double()[vectors.long()].mean(dim=-2)
    rtol = {torch.float32: 1e-6, torch.float16: 1.01 * 2**-11, torch.bfloat16: 1.01 * 2**-8}[dtype]
    torch.testing.assert_close(fused.double(), exact, rtol=rtol, atol=0)
    host = fuse(table, vectors)
    assert torch.equal(fused, host) or dtype == torch.bfloat16  # both sum in order in float32 and round once
    assert_apart_in_halves_alone(fused, host, exact)


def assert_apart_in_halves_alone(fused: torch.Tensor, host: torch.Tensor, exact: torch.Tensor) -> None:
    """Raise AssertionError for a difference where the exact mean is not halfway between the two results."""
    differs = fused != host
    middle = (fused.double() + host.double()) / 2
    torch.testing.assert_close(middle[differs], exact[differs], rtol=1e-6, atol=0)
    assert differs.double().mean() < 0.1


@pytest.mark.parametrize("n_vectors", [4, 16, 49])
def test_a_host_and_a_gpu_round_bfloat16_apart_in_halves_alone(n_vectors):
    """A GPU rounds to even, as torch's own conversion does."""
    generator = torch.Generator().manual_seed(0)
    table = (4 * torch.rand(1000, 96, generator=generator)).bfloat16()
    vectors = torch.randint(len(table), (8, 48, n_vectors), generator=generator)
    exact = table.double()[vectors].mean(dim=-2)
    scale = 2.0 ** -(n_vectors - 1).bit_length()  # of the sum that is rounded
    to_even = (exact * n_vectors * scale).bfloat16().float() / torch.tensor(n_vectors * scale)
    host = fuse(table, vectors)
    assert_apart_in_halves_alone(to_even, host, exact)
    torch.testing.assert_close(to_even, host, rtol=2**-7, atol=0)


@pytest.fixture
def config(feature_store, tmp_path, device) -> FinetuneConfig:
    return FinetuneConfig(
        str(feature_store), str(tmp_path / "run"), iterations=70, device=str(device), method="fsa"
    )


def head_of(config: FinetuneConfig, quiet, **changed) -> bytes:
    run = finetune(replace(config, overwrite=True, **changed), quiet)
    return (run.path / "head.pt").read_bytes()


def test_one_seed_gives_one_head_wherever_the_maps_live(config, quiet, caplog):
    host = head_of(config, quiet, residency="host")
    assert head_of(config, quiet, residency="host") == host
    assert head_of(config, quiet, residency="stream") == host
    assert head_of(config, quiet, residency="stream", memory=1e-3, window=7, prefetch=3) == host
    assert caplog.messages == []  # recording did not fail


def test_maps_on_the_device_give_the_same_head_but_for_rounding(config, quiet):
    """To the bit on a CPU, where host and device are the same."""
    heads = []
    for residency in ("device", "device", "host"):
        run = finetune(replace(config, overwrite=True, residency=residency), quiet)
        heads.append(torch.load(run.path / "head.pt", weights_only=True))
    for name, values in heads[0].items():
        if torch.is_tensor(values):
            assert torch.equal(values, heads[1][name])
            torch.testing.assert_close(values, heads[2][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["crt", "lws", "weight-balancing"])
def test_one_seed_gives_one_head_by_every_kind_of_steps(config, quiet, method):
    """Recorded, with a cosine schedule, with trained scales."""
    assert head_of(config, quiet, method=method) == head_of(config, quiet, method=method)


def trained(out: Path, root: Path, device: torch.device, quiet) -> dict[str, torch.Tensor]:
    config = TrainConfig(
        out=str(out),
        network=NetworkConfig("resnet18"),  # with a max-pooling layer, whose windows overlap
        dataset=DatasetConfig("imagefolder", root=str(root)),
        image_size=32,
        epochs=1,
        batch_size=9,
        device=str(device),
    )
    train(config, quiet)
    return load_checkpoint(out / "checkpoint.pt").state


def test_phase_1_of_a_network_with_max_pooling_repeats(device, small_root, tmp_path, quiet):
    one, again = (trained(tmp_path / name, small_root, device, quiet) for name in "ab")
    assert all(torch.equal(one[name], again[name]) for name in one)
