"""Channels last on a CPU: where it is faster and safe, and nowhere after training."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_training import same_weights, saved, train_interrupted
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy

from extract.checkpoints.restore import restore_network
from extract.config import NetworkConfig, TrainConfig
from extract.device import Compute
from extract.networks.parts import Network
from extract.networks.registry import build_network
from extract.train import train
from extract.training.layout import layout_of

pytestmark = pytest.mark.usefixtures("in_tmp_path")
LAST, FIRST = torch.channels_last, torch.contiguous_format


def strided(n_in: int, n_out: int, side: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, n_in, 3), nn.Conv2d(n_in, n_out, side, stride))


@pytest.mark.parametrize(
    ("network", "precision", "expected"),
    [
        (strided(16, 32, 1, 2), "bf16", LAST),
        (strided(16, 32, 1, 2), "fp32", FIRST),
        (strided(8, 16, 1, 2), "bf16", FIRST),
        (strided(16, 12, 1, 2), "bf16", FIRST),
        (strided(8, 12, 1, 1), "bf16", LAST),
        (strided(8, 12, 3, 2), "bf16", LAST),
    ],
)
def test_channels_are_last_in_bf16_but_where_torch_is_broken(network, precision, expected):
    assert layout_of(network, Compute(torch.device("cpu"), precision, 8, 0)) == expected


def made(config: NetworkConfig) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_network(config, 3, 32)


@pytest.mark.parametrize(("arch", "width"), [("resnet32", None), ("resnet18-cifar", 16), ("resnet50", None)])
def test_networks_of_usual_width_have_channels_last(arch, width):
    network = made(NetworkConfig(arch, width))
    assert layout_of(network, Compute(torch.device("cpu"), "bf16", 8, 0)) == LAST


@pytest.fixture
def config(tiny: TrainConfig) -> TrainConfig:
    return replace(tiny, network=NetworkConfig("resnet8", 16), precision="bf16", epochs=2)


def test_the_order_in_memory_changes_rounding_alone(config):
    """Gradients in bf16 are as near to those in float32 with channels last as with channels first."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 3, 16, 16, generator=generator)
    labels = torch.randint(3, (64,), generator=generator)
    gradients = {}
    for precision, layout in (("fp32", FIRST), ("bf16", FIRST), ("bf16", LAST)):
        network = made(config.network).train().to(memory_format=layout)
        with Compute(torch.device("cpu"), precision, 8, 0).autocast():
            outputs = network(images.contiguous(memory_format=layout))
        cross_entropy(outputs.float(), labels).backward()
        parts = [weight.grad.flatten() for weight in network.parameters()]
        gradients[precision, layout] = torch.cat(parts).double()
    first, last = (
        cosine_similarity(gradients["bf16", layout], gradients["fp32", FIRST], dim=0)
        for layout in (FIRST, LAST)
    )
    assert first > 0.99
    assert last > 1 - 1.2 * (1 - first)
    assert not torch.equal(gradients["bf16", LAST], gradients["bf16", FIRST])


def test_a_network_with_channels_last_resumes_to_the_same_bits(config, quiet):
    alone = train(replace(config, out="whole"), quiet)
    assert any(t.ndim == 4 and not t.is_contiguous() for t in alone.state.values())
    train_interrupted(config, 3)
    assert same_weights(train(replace(config, resume=True), quiet), alone)


def test_after_training_features_do_not_depend_on_how_weights_were_laid_out(config, quiet):
    trained = train(config, quiet)
    path = Path(config.out) / "checkpoint.pt"
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    compute = Compute(torch.device("cpu"), "fp32", 8, 0)
    features = []
    for state in (saved(config).state, {name: t.contiguous() for name, t in trained.state.items()}):
        network = restore_network(replace(trained, state=state), path)
        network.to(compute.device, memory_format=compute.memory_format)
        assert all(weight.is_contiguous() for weight in network.parameters())
        features.append(network.features(images))
    assert torch.equal(*features)
