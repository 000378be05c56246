"""Functions of the user's that make networks, and how they can go wrong: each is told in one line."""

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from bad_input import refuse, succeed, write_images
from torch import nn

from extract.config import NetworkConfig
from extract.device import Compute
from extract.networks.registry import build_network, network_to_load
from extract.training.first_step import check_trains
from store.errors import UserError

FACTORY = """
import torch
from torch import nn

def small():
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 9)]
    return nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), *head)
"""
BY_MODE = """
class ByMode(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.fc, self.aux = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 9), nn.Linear(6, 9)

    def forward(self, images):
        pooled = self.stem(images).mean((2, 3))
        if not self.training:
            return self.fc(pooled)
        return self.in_training(pooled)

class Raises(ByMode):
    def in_training(self, pooled):
        raise ValueError("labels are" + chr(10) + "needed")

class OtherLayer(ByMode):
    def in_training(self, pooled):
        return self.aux(pooled)

class OtherWidth(ByMode):
    def in_training(self, pooled):
        return self.fc(torch.cat([pooled, pooled], 1))

class Detached(ByMode):
    def in_training(self, pooled):
        return self.fc(pooled.detach()), self.aux(pooled)
"""
TRAIN = ["--root", "photos", "--image-size", 16, "--epochs", 1, "--batch-size", 8, "--device", "cpu"]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(sys.modules)

    def write(name: str, text: str) -> str:
        Path(f"{name}.py").write_text(text)
        return name

    yield write
    for name in sys.modules.keys() - before.keys():
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ("Raises", "(ValueError: labels are needed)"),
        ("OtherLayer", "(NotExactError: "),
        ("OtherWidth", "(RuntimeError: "),
    ],
)
def test_one_that_fails_in_training_leaves_nothing(network, reason, module):
    write_images(Path("photos"))
    arch = f"{module('by_mode', FACTORY + BY_MODE)}:{network}"
    says = [f"--arch {arch}: fails in training {reason}", "self.training"]
    refuse("train", *TRAIN, "--arch", arch, "--out", "p", says=says)
    assert not Path("p").exists()


def test_one_that_is_another_in_training_and_works_is_trained(module):
    write_images(Path("photos"))
    succeed("train", *TRAIN, "--arch", f"{module('by_mode', FACTORY + BY_MODE)}:Detached", "--out", "p")


class TrainsElsewhere(nn.Module):
    """As synchronised batch normalisation, which trains on a GPU alone; the meta device stands for one."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training and images.device.type == "cpu":
            raise ValueError("expected input tensor to be on GPU")
        return images.mean((2, 3)) * self.weight


class OnMeta(Compute):
    def autocast(self):
        return nullcontext()


def test_a_step_is_tried_on_the_device_of_the_training():
    cpu = Compute(torch.device("cpu"), "fp32", 8, 0)
    check_trains(TrainsElsewhere(), "own", 16, OnMeta(torch.device("meta"), "fp32", 8, 0))
    with pytest.raises(UserError, match="to be on GPU"):
        check_trains(TrainsElsewhere(), "own", 16, cpu)


SHARED = """
WHOLE, BODY = small(), nn.Conv2d(3, 6, 4, 4)
ACTIVATION = nn.ReLU()  # which has no weights

def whole():
    return WHOLE

def body():
    return nn.Sequential(BODY, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 9))

def activation():
    own = nn.Conv2d(3, 6, 4, 4)
    return nn.Sequential(own, ACTIVATION, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 9))
"""


@pytest.mark.parametrize("function", ["whole", "body"])
def test_weights_that_two_calls_share_are_refused(function, module):
    """Else whoever loads a second checkpoint changes the network of the first."""
    write_images(Path("photos"))
    arch = f"{module('shared_nets', FACTORY + SHARED)}:{function}"
    says = [f"--arch {arch}: returned a", "that it had returned before; make all modules in the function"]
    refuse("train", *TRAIN, "--arch", arch, "--out", "p", says=says)
    assert not Path("p").exists()


def test_what_has_no_weights_may_be_shared(module):
    arch = f"{module('shared_nets', FACTORY + SHARED)}:activation"
    with torch.random.fork_rng(devices=[]):
        assert build_network(NetworkConfig(arch), 3, 16) is not network_to_load(NetworkConfig(arch), 3, 16)


def test_a_function_may_import_from_the_working_folder(module):
    module("made_blocks", FACTORY)
    name = module("late_nets", "def net():\n    from made_blocks import small\n    return small()\n")
    with torch.random.fork_rng(devices=[]):
        assert isinstance(build_network(NetworkConfig(f"{name}:net"), 3, 16), nn.Module)


@pytest.mark.parametrize("own", [False, True], ids=["", "the working folder is there already"])
def test_the_list_of_folders_with_modules_keeps_what_is_not_ours(own, module, tmp_path):
    name = module("adding_nets", "import sys\nsys.path.append('/added')\n" + FACTORY)
    before = [str(tmp_path), *sys.path] if own else list(sys.path)
    sys.path[:] = before
    with torch.random.fork_rng(devices=[]):
        build_network(NetworkConfig(f"{name}:small"), 3, 16)
    assert sys.path == [*before, "/added"]


@pytest.mark.parametrize("name", ["store", "extract", "click"])
def test_a_file_that_is_called_as_an_installed_module_is_named(name, module):
    module(name, FACTORY)
    says = [f"--arch {name}:small: {name} is ", f"which hides {name}.py of this folder; rename yours"]
    with pytest.raises(UserError) as raised:
        build_network(NetworkConfig(f"{name}:small"), 3, 16)
    assert all(text in str(raised.value) for text in says)
