"""Networks: sizes and shapes of the papers, and a head that class activation maps can use."""

import subprocess
import sys

import pytest
import torch
import torchvision
from bad_input import refuse, run
from torch import nn

from extract.config import NetworkConfig
from extract.device import Compute
from extract.networks import cifar_resnet, registry, torchvision_models
from extract.networks.family import Family, Preparation
from extract.networks.layers import ZeroPadShortcut
from extract.networks.parts import Network, pool
from extract.networks.registry import FAMILIES, build_network, check_named_network, preparation
from store.errors import UserError


def build(arch: str, n_classes: int = 10, **changes):
    """A network in evaluation mode, its weights drawn from seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_network(NetworkConfig(arch, **changes), n_classes).eval()


def build_without_weights(arch: str, n_classes: int = 10, **changes):
    with torch.device("meta"):
        return build(arch, n_classes, **changes)


def random_images(n: int, size: int) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def option_a_parameters(depth: int, n_classes: int, width: int) -> int:
    """He et al. 2016, sec. 4.2: 6n + 2 weighted layers, two BatchNorm parameters a channel of each."""
    n = (depth - 2) // 6
    total = 3 * width * 9 + 2 * width
    before = width
    for channels in (width, 2 * width, 4 * width):
        convolutions = 9 * channels * (before + (2 * n - 1) * channels)
        total += convolutions + 2 * n * 2 * channels
        before = channels
    return total + (4 * width + 1) * n_classes


@pytest.mark.parametrize(
    ("depth", "exact", "millions"),
    [(8, 75_290, 0.08), (20, 269_722, 0.27), (32, 464_154, 0.46), (44, 658_586, 0.66), (56, 853_018, 0.85)],
)
def test_parameter_counts_are_those_of_he_et_al(depth, exact, millions):
    network = build_without_weights(f"resnet{depth}")
    assert count(network) == option_a_parameters(depth, 10, 16) == exact
    assert round(exact / 1e6, 2) == millions


def test_resnet10_has_one_block_in_each_stage():
    """Liu et al. 2019 train it on ImageNet-LT: a stem of 7×7 and four stages of one basic block."""
    stages = [(64, 64, False), (64, 128, True), (128, 256, True), (256, 512, True)]
    expected = 3 * 64 * 49 + 2 * 64 + (512 + 1) * 1000
    for before, after, projected in stages:
        expected += (
            9 * before * after + 9 * after * after + 4 * after + projected * (before * after + 2 * after)
        )
    network = build_without_weights("resnet10", 1000)
    assert count(network) == expected == 5_418_792
    assert network.features(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 512, 7, 7)
    with pytest.raises(UserError, match="--weights DEFAULT: resnet10 has no pre-trained weights"):
        build("resnet10", weights="DEFAULT")


@pytest.mark.parametrize("width", [1, 4, 24])
def test_width_narrows_every_stage(width):
    network = build_without_weights("resnet20", 7, width=width)
    assert count(network) == option_a_parameters(20, 7, width)
    assert network.classifier.weight.shape == (7, 4 * width)


@pytest.mark.parametrize(
    ("arch", "imagenet_arch"), [("resnet18-cifar", "resnet18"), ("resnet34-cifar", "resnet34")]
)
def test_wide_cifar_networks_are_torchvision_s_behind_a_3x3_stem(arch, imagenet_arch):
    with torch.device("meta"):
        original = torchvision.models.get_model(imagenet_arch, num_classes=10)
    stems_apart = 64 * 3 * (7 * 7 - 3 * 3)
    assert count(build_without_weights(arch)) == count(original) - stems_apart


@pytest.mark.parametrize(
    ("arch", "size", "shape"),
    [
        ("resnet20", 32, (64, 8, 8)),
        ("resnet32", 32, (64, 8, 8)),
        ("resnet32", 64, (64, 16, 16)),
        ("resnet18-cifar", 32, (512, 4, 4)),
        ("resnet34-cifar", 32, (512, 4, 4)),
        ("resnet18", 224, (512, 7, 7)),
        ("resnet50", 224, (2048, 7, 7)),
        ("resnet152", 256, (2048, 8, 8)),
    ],
)
def test_feature_maps_are_of_the_papers_shapes(arch, size, shape):
    network = build_without_weights(arch, n_classes=5)
    images = torch.empty(2, 3, size, size, device="meta")
    assert network.features(images).shape == (2, *shape)
    assert network.classifier.weight.shape == (5, shape[0])


def test_every_architecture_has_its_usual_image_size():
    assert {preparation(NetworkConfig(arch)).image_size for arch in cifar_resnet.FAMILY.names} == {32}
    assert {preparation(NetworkConfig(arch)).image_size for arch in torchvision_models.FAMILY.names} == {224}


@pytest.mark.parametrize("arch", ["resnet20", "resnet18-cifar"])
def test_logits_are_the_classifier_on_the_mean_of_the_feature_map(arch):
    network = build(arch, width=4)
    images = random_images(3, 32)
    with torch.inference_mode():
        maps = network.features(images)
        by_hand = maps.mean(dim=(2, 3)) @ network.classifier.weight.T + network.classifier.bias
        torch.testing.assert_close(network(images), by_hand)
    assert maps.min() >= 0  # the last ReLU is part of the features
    assert maps.std(dim=(2, 3)).max() > 0


def test_a_cifar_stage_halves_and_doubles():
    network = build("resnet20", width=4)
    images, shapes = random_images(1, 32), []
    for layer in network.features:
        images = layer(images)
        shapes.append(tuple(images.shape[1:]))
    assert shapes[3:] == [(4, 32, 32)] * 3 + [(8, 16, 16)] * 3 + [(16, 8, 8)] * 3


def test_a_split_torchvision_network_computes_what_torchvision_does():
    network = build("resnet18", n_classes=6)
    with torch.device("meta"):
        original = torchvision.models.resnet18(num_classes=6).eval()
    generator = torch.Generator().manual_seed(1)
    for name, buffer in network.named_buffers():  # statistics that are not the identity
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2, generator=generator)
        elif name.endswith("running_mean"):
            buffer.uniform_(-0.5, 0.5, generator=generator)
    state = {
        name.removeprefix("features.").replace("classifier.", "fc."): tensor
        for name, tensor in network.state_dict().items()
    }
    original.load_state_dict(state, strict=True, assign=True)
    images = random_images(2, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network(images), original(images))


def test_pretrained_features_are_kept_under_a_new_classifier(monkeypatch):
    with torch.random.fork_rng(devices=[]):
        pretrained = torchvision.models.resnet18()
    get_model = torchvision.models.get_model

    def give(name, weights=None, **options):
        return pretrained if weights == "DEFAULT" else get_model(name, **options)

    monkeypatch.setattr(torchvision.models, "get_model", give)
    network = build("resnet18", n_classes=3, weights="DEFAULT")
    assert network.classifier.weight.shape == (3, 512)
    original = pretrained.state_dict()
    for name, tensor in network.features.state_dict().items():
        assert torch.equal(tensor, original[name])


def test_initial_weights_come_from_the_generator():
    first, again = build("resnet20", width=4), build("resnet20", width=4)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    fan_out = 16 * 9
    assert first.features[-1].conv2.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


def test_zero_pad_shortcut_by_hand():
    x = torch.arange(1.0, 10).view(1, 1, 3, 3).repeat(1, 2, 1, 1)
    x[:, 1] *= 10
    y = ZeroPadShortcut(new_channels=2, stride=2)(x)
    zero = [[0, 0], [0, 0]]
    assert y.tolist() == [[zero, [[1, 3], [7, 9]], [[10, 30], [70, 90]], zero]]
    assert not list(ZeroPadShortcut(2, 2).parameters())
    odd = ZeroPadShortcut(new_channels=3, stride=1)(x)
    assert odd.shape == (1, 5, 3, 3)
    assert torch.equal(odd[:, 1:3], x)


def test_pooling_and_logits_stay_in_float32_under_autocast():
    network = build("resnet20", width=4)
    images = random_images(2, 32)
    compute = Compute(torch.device("cpu"), "bf16", 2, 0)
    with torch.inference_mode(), compute.autocast():
        maps = network.features(images)
        logits = network(images)
    assert maps.dtype == torch.bfloat16
    assert logits.dtype == torch.float32
    exact = maps.float().mean(dim=(2, 3)) @ network.classifier.weight.T + network.classifier.bias
    torch.testing.assert_close(logits, exact)


@pytest.mark.parametrize(
    ("arch", "reason"),
    [
        ("vgg11", "more than one FC layer behind its pooling"),
        ("alexnet", "more than one FC layer"),
        ("vit_b_16", "its FC layer 'heads.head' sees one token"),
        ("convnext_tiny", "layer_norm stands between its pooling and its FC layer 'classifier.2'"),
        ("squeezenet1_0", "its logits come from adaptive_avg_pool2d, not from one FC layer"),
        ("resnet33", "unknown; expected one of resnet8, "),
    ],
)
def test_other_heads_are_refused_with_the_reason(arch, reason):
    with pytest.raises(UserError, match=f"--arch {arch}: .*{reason}") as raised:
        build(arch)
    assert "resnet50" in str(raised.value)


@pytest.mark.parametrize(
    ("arch", "changes", "message"),
    [
        ("resnet50", {"width": 8}, "--width 8: resnet50 has a fixed width"),
        ("resnet32", {"width": 0}, "--width 0: must be 1 or more"),
        ("resnet32", {"weights": "DEFAULT"}, "resnet32 has no pre-trained weights"),
    ],
)
def test_options_that_an_architecture_lacks_are_refused(arch, changes, message):
    with pytest.raises(UserError, match=message):
        build(arch, **changes)


def test_a_family_from_outside_is_a_line_of_the_registry(monkeypatch, in_tmp_path):
    """Its names are in no other list: `--help` and errors have them, and its options are checked."""

    def toy(config: NetworkConfig, n_classes: int, image_size: int) -> Network:
        return Network(nn.Conv2d(3, config.width, 4, stride=4), nn.Linear(config.width, n_classes))

    monkeypatch.setattr(
        registry,
        "FAMILIES",
        [*FAMILIES, Family(("toy", "toy2"), toy, lambda config: Preparation(8), ("width",))],
    )
    network, images = build("toy", 5, width=6), random_images(2, 8)
    assert preparation(NetworkConfig("toy")).image_size == 8
    assert torch.equal(network(images), network.classify(pool(network.features(images))))
    assert network(images).shape == (2, 5)
    assert count(build("resnet20")) == option_a_parameters(20, 10, 16)
    assert ", resnet152, toy, toy2, or timm:NAME" in " ".join(run("train", "--help").stdout.split())
    refuse("train", "--arch", "toy3", says=["--arch toy3: unknown; expected one of resnet8, ", ", toy, toy2"])
    refuse("train", "--arch", "toy", "--weights", "DEFAULT", says=["toy has no pre-trained weights"])
    with pytest.raises(UserError, match=r"--width 4: resnet18 .*choose one of resnet8, .*, toy, toy2$"):
        check_named_network(NetworkConfig("resnet18", width=4))


def test_what_is_known_of_networks_costs_no_heavy_import():
    heavy = ("torch", "numpy", "torchvision")
    code = f"import sys, extract.networks.registry\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
