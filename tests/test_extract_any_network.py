"""Networks of torchvision and timm that nobody listed: their own logits, and the whole way."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from bad_input import refuse, succeed, write_images
from torch import nn

import tailcache
from extract.checkpoints.checkpoint import load_checkpoint
from extract.config import NetworkConfig
from extract.networks.registry import build_network, network_to_load, preparation
from store.errors import UserError
from store.reader import FeatureStore

ARCHITECTURES = [
    "mobilenet_v2",
    "densenet121",
    "shufflenet_v2_x0_5",
    "timm:test_byobnet",
    "timm:resmlp_12_224",
]
SMALL = "timm:test_efficientnet"


def built(arch: str, n_classes: int, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(NetworkConfig(arch), n_classes).eval()


def original(arch: str, n_classes: int) -> nn.Module:
    """As its own library makes it, with other initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        if arch.startswith("timm:"):
            return timm.create_model(arch.removeprefix("timm:"), num_classes=n_classes).eval()
        return torchvision.models.get_model(arch, num_classes=n_classes).eval()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_its_weights_under_their_own_names_give_the_same_logits(arch):
    network, own = built(arch, 7), original(arch, 7)
    names = {"features.network": "", "classifier": f"{network.classifier_name}."}
    state = {}
    for name, tensor in network.state_dict().items():
        part = "classifier" if name.startswith("classifier.") else "features.network"
        state[names[part] + name.removeprefix(f"{part}.")] = tensor
    own.load_state_dict(state, strict=True)
    size = preparation(NetworkConfig(arch)).image_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = own(images)
        maps = network.features(images)
        torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)
        weight, bias = network.classifier.weight, network.classifier.bias
        torch.testing.assert_close(maps.mean((2, 3)) @ weight.T + bias, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("arch", ["googlenet", "inception_v3"])
def test_a_network_is_the_same_with_weights_or_without(arch):
    """Pre-trained ones come without auxiliary heads, and a checkpoint of one must load into one without."""
    with torch.device("meta"):
        network = build_network(NetworkConfig(arch), 3)
        own = torchvision.models.get_model(arch, num_classes=3, aux_logits=False, init_weights=False)
    assert network.backbone.state_dict().keys() == own.state_dict().keys() - {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("arch", ["shufflenet_v2_x0_5", "timm:test_byobnet"])
def test_a_network_to_load_becomes_the_one_that_was_saved(arch):
    network, loaded = built(arch, 3), network_to_load(NetworkConfig(arch), 3)
    loaded.load_state_dict(network.state_dict(), assign=True)
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(network(images), loaded.eval()(images))


FACTORY = """
import torch
from torch import nn

def small():
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 9)]
    return nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), *head)

def of_width(width):
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 9)]
    return nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.ReLU(), *head)

class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.fc, self.mask = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 9), torch.rand(6, 1, 1)
        self.head = self.fc

    def forward(self, images):
        return self.head((self.stem(images) * self.mask).mean((2, 3)))

def other_when_made_again():
    return Masked()

def in_half_precision():
    return of_width(4).half()

def over_its_batch():
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 9)]
    return nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.BatchNorm2d(6, track_running_stats=False), *head)

def several_heads():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 9))

def of_one_size():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 6))

def broken():
    raise ValueError("no" + chr(10) + "such thing")

def leaves():
    raise SystemExit(7)

def no_network():
    return small

def needs_arguments(width):
    return small()
"""


def test_a_network_of_the_users_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "photos")
    Path("made_nets.py").write_text(FACTORY)
    trained = ["--root", "photos", "--image-size", "16", "--epochs", "1", "--batch-size", "8"]
    trained += ["--device", "cpu"]
    succeed("train", *trained, "--arch", "made_nets:small", "--out", "phase1")
    assert load_checkpoint(Path("phase1/checkpoint.pt")).state["classifier.weight"].shape == (3, 6)
    succeed("train", *trained, "--arch", "made_nets:in_half_precision", "--out", "whole")
    for arch, says in {
        "made_nets:several_heads": ["--arch made_nets:several_heads: refused", "more than one FC layer"],
        "made_nets:of_one_size": [
            "--arch made_nets:of_one_size: fails on images of 16 pixels (RuntimeError: "
        ],
        "made_nets:broken": ["--arch made_nets:broken: failed (ValueError: no such thing)"],
        "made_nets:leaves": ["--arch made_nets:leaves: failed (SystemExit: 7)"],
        "made_nets:other_when_made_again": ["is another network when it is made again"],
        "made_nets:over_its_batch": ["depends on the other images of its batch"],
        "timm:test_resnet --arch-option drop_rat=1": ["--arch timm:test_resnet: cannot be made (TypeError: "],
        "timm:test_resnet.nope": ["--arch timm:test_resnet.nope: RuntimeError: "],
        "made_nets:no_network": ["returned function, expected a torch.nn.Module"],
        "made_nets:needs_arguments": ["failed (TypeError: ", "'width'"],
        "made_nets:absent": ["cannot be imported (AttributeError: "],
        "no.such.module:net": ["cannot be imported (ModuleNotFoundError: No module named 'no'"],
        "timm:no_such_net": ["--arch timm:no_such_net: unknown to timm"],
        "timm:test_resnett": ["near it are test_resnet"],
        "made-nets:small": ["--arch made-nets:small: unknown; expected one of resnet8"],
    }.items():
        refuse("train", *trained, "--arch", *arch.split(), "--out", "other", says=says)


def test_a_function_that_a_checkpoint_alone_names_is_not_called(tmp_path, monkeypatch):
    """Opening a file runs no code: the user names it again, for each command that makes the network."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "photos")
    Path("made_nets.py").write_text(FACTORY)
    arch, on = "made_nets:of_width", ["--device", "cpu"]
    trained = ["--root", "photos", "--image-size", "16", "--epochs", "2", "--batch-size", "8", "--arch", arch]
    refuse("train", *trained, "--arch-option", "width", "--out", "p", says=["expected name=value, as in"])
    refuse("train", *trained, "--arch-option", "wide=8", "--out", "p", says=["failed (TypeError: ", "'wide'"])
    succeed("train", *trained, "--arch-option", "width=8", "--out", "p", *on)
    assert load_checkpoint(Path("p/checkpoint.pt")).state["classifier.weight"].shape == (3, 8)
    monkeypatch.setattr(
        "extract.networks.factory.importlib.import_module", lambda name: pytest.fail("called")
    )
    ckpt = ["--ckpt", "p/checkpoint.pt"]
    for command in (
        ["extract", *ckpt, "--store", "s.zarr"],
        ["evaluate", *ckpt],
        ["predict", *ckpt, "photos"],
        ["export", *ckpt, "--out", "n.pt"],
        ["store", "plan", *ckpt, "--store", "s.zarr"],
        ["train", "--resume", "--out", "p"],
    ):
        refuse(*command, says=[f"made by {arch}, which is code", f"pass --arch {arch} if you trust it"])
        refuse(*command, "--arch", "resnet8", says=["--arch"])
    with pytest.raises(UserError, match="which is code"):
        tailcache.load_network("p/checkpoint.pt")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    succeed("extract", *ckpt, "--store", "s.zarr", "--arch", arch, *on)
    succeed("store", "verify", "s.zarr", *ckpt, "--sample", "2", "--arch", arch, *on)
    succeed("evaluate", *ckpt, "--arch", arch, *on)
    succeed("predict", *ckpt, "photos", "--arch", arch, *on)
    succeed("export", *ckpt, "--out", "n.pt", "--arch", arch)
    succeed("train", "--resume", "--out", "p", "--arch", arch, *on)
    assert tailcache.load_network("p/checkpoint.pt", arch=arch)(torch.zeros(1, 3, 16, 16)).shape == (1, 3)


def test_an_fc_layer_of_two_names_is_one(tmp_path, monkeypatch):
    """`self.head = self.fc`: both names are of the new layer, and of the exported one."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "made_alias.py").write_text(FACTORY.replace("torch.rand(6, 1, 1)", "torch.ones(6, 1, 1)"))
    network = built("made_alias:other_when_made_again", 3)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network.original().eval()(images), network(images))
        assert network(images).shape == (2, 3)


def test_the_whole_way_of_a_network_of_timm(tmp_path, monkeypatch):
    """Trained, extracted, fine-tuned, evaluated: each from the files of the one before."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "photos")
    on = ["--device", "cpu"]
    trained = [
        "--root",
        "photos",
        "--arch",
        SMALL,
        "--image-size",
        "64",
        "--epochs",
        "1",
        "--batch-size",
        "8",
    ]
    succeed("train", *trained, "--out", "phase1", *on)
    succeed("extract", "--ckpt", "phase1/checkpoint.pt", "--store", "feats.zarr", *on)
    succeed(
        "finetune", "--store", "feats.zarr", "--out", "run", "--iterations", "10", "--method", "plain", *on
    )
    checkpoint, store = load_checkpoint(Path("phase1/checkpoint.pt")), FeatureStore(Path("feats.zarr"))
    assert checkpoint.network["arch"] == SMALL
    assert store.map_shape[1:] == (2, 2, 256)
    weight = checkpoint.state["classifier.weight"].numpy()
    np.testing.assert_array_equal(store.classifier[0], weight)
    said = succeed("evaluate", "--ckpt", "run/checkpoint.pt", "--json", *on).stdout
    assert '"overall"' in said
