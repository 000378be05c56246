"""How images reach a network of the user's: as it says itself, else as usual, and a line says which."""

from pathlib import Path

import pytest
import timm
import torch
from bad_input import succeed, write_images
from torch import nn

from extract.checkpoints.checkpoint import load_checkpoint
from extract.networks.config import NetworkConfig
from extract.networks.factory import FAMILY
from extract.networks.family import Preparation

pytestmark = pytest.mark.usefixtures("in_tmp_path")
HERE = "test_extract_factory_preparation"
TRAIN = ["train", "--root", "photos", "--epochs", 1, "--batch-size", 8, "--device", "cpu", "--workers", 0]
SAID = {"input_size": (3, 80, 80), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3), "crop_pct": 0.8}


class Plain(nn.Module):
    """A small network."""

    def __init__(self):
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 6, 8, 8), nn.Linear(6, 9)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, 9)."""
        return self.fc(self.stem(images).mean((2, 3)))


class Wrapped(nn.Module):
    """A network around one that says how images reach it."""

    def __init__(self):
        super().__init__()
        self.inner = Plain()
        self.inner.default_cfg = SAID | {"interpolation": "bicubic"}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, 9)."""
        return self.inner(images)


def says_nothing() -> nn.Module:
    """A network without a description."""
    return Plain()


def of_timm() -> nn.Module:
    """One of timm's."""
    return timm.create_model("test_efficientnet")


def says_nonsense(kind: str) -> nn.Module:
    """A network with a description that cannot be used."""
    network = Plain()
    network.default_cfg = {
        "bytes": SAID | {"mean": (128, 128, 128)},
        "grey": SAID | {"mean": (0.5,), "std": (0.5,)},
        "text": "224",
        "without": {"input_size": (3, 80, 80)},
        "crop": SAID | {"crop_pct": 9},
    }[kind]
    return network


def prepared(function: str, *options: str) -> Preparation:
    return FAMILY.preparation(NetworkConfig(f"{HERE}:{function}", arch_option=options))


def test_a_description_in_the_network_or_within_it_is_used():
    with torch.random.fork_rng(devices=[]):
        own = of_timm().pretrained_cfg
    found = prepared("of_timm")
    assert (found.mean, found.std) == (own["mean"], own["std"])
    assert found.image_size == own["input_size"][-1]
    assert found.resize == int(found.image_size / own["crop_pct"])
    within = Preparation(80, 100, SAID["mean"], SAID["std"], "bicubic", "its default_cfg")
    assert prepared("Wrapped") == within


@pytest.mark.parametrize("kind", ["bytes", "grey", "text", "without", "crop"])
def test_one_that_cannot_be_used_is_as_none(kind):
    assert prepared("says_nonsense", f"kind={kind}") == prepared("says_nothing") == Preparation(224)


def note_of(stderr: str) -> str:
    (line,) = (line for line in stderr.splitlines() if "--mean and --std" in line)
    return line


def test_training_prepares_images_as_the_network_says_and_tells_it():
    write_images(Path("photos"))
    said = note_of(succeed(*TRAIN, "--arch", f"{HERE}:Wrapped", "--out", "a").stderr)
    assert "less mean 0.5, 0.4, 0.3, by standard deviation 0.2, 0.25, 0.3 (as its default_cfg says)" in said
    transform = load_checkpoint(Path("a/checkpoint.pt")).transform
    assert (transform["mean"], transform["std"]) == (SAID["mean"], SAID["std"])
    assert (transform["image_size"], transform["resize"], transform["interpolation"]) == (80, 100, "bicubic")
    plain = [*TRAIN, "--arch", f"{HERE}:says_nothing", "--image-size", 80]
    said = note_of(succeed(*plain, "--out", "b").stderr)
    assert "0.485, 0.456, 0.406, by standard deviation 0.229, 0.224, 0.225 (of ImageNet, for the" in said
    named = succeed(*plain, "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--out", "c")
    assert "--mean and --std" not in named.stderr


def test_adoption_too():
    write_images(Path("photos"))
    options = ["--root", "photos", "--classifier", "fit", "--weight-decay", 0.1, "--device", "cpu"]
    fit = ["extract", *options, "--workers", 0]
    said = note_of(succeed(*fit, "--arch", f"{HERE}:Wrapped", "--store", "a.zarr").stderr)
    assert "as 80 of 100 pixels, bicubic, less mean 0.5, 0.4, 0.3, by" in said
    assert "(as its default_cfg says)" in said
    plain = ["--arch", f"{HERE}:says_nothing", "--image-size", 80, "--store", "b.zarr"]
    assert "(of ImageNet, for the network says none); --image-size" in note_of(succeed(*fit, *plain).stderr)
    resumed = succeed(*fit, "--arch", f"{HERE}:Wrapped", "--store", "a.zarr", "--resume")
    assert "--mean and --std" not in resumed.stderr
