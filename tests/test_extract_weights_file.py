"""Weights that other programs saved, as they wrap them: loaded whole, or refused with what does not fit."""

import argparse
import hashlib
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from bad_input import TINY, refuse, succeed, write_images
from made_training import same_weights, saved, train_interrupted
from rich.progress import Progress
from safetensors.torch import save_file
from torch import nn

from extract.checkpoints.checkpoint import load_checkpoint
from extract.config import NetworkConfig, TrainConfig
from extract.networks.parts import Network
from extract.networks.registry import build_network
from extract.train import train
from finetune.commands.options import build
from finetune.compare.configurations import phase1_options
from store.errors import UserError

ARCH = "shufflenet_v2_x0_5"
QUIET = Progress(disable=True)
State = dict[str, torch.Tensor]


@cache
def torchvisions(arch: str = ARCH, n_classes: int = 7) -> State:
    """The state dict of a network of torchvision's, its statistics not the initial ones. Do not change it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        state = torchvision.models.get_model(arch, num_classes=n_classes).state_dict()
        return {n: v + torch.rand(v.shape) if "running_" in n else v for n, v in state.items()}


def loaded(path: Path, arch: str = ARCH, **options) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_network(NetworkConfig(arch, weights=str(path), **options), 3).eval()


def assert_has(network: Network, state: State) -> None:
    backbone = network.backbone.state_dict()
    assert backbone
    for name, value in backbone.items():
        assert torch.equal(value, state[name]), name


def other(state: State) -> State:
    """Other weights under the same names, as an average of them has."""
    return {name: value + 1 for name, value in state.items()}


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


OPTIMIZER = {"state": {0: {"momentum_buffer": torch.zeros(4)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
WRAPPINGS = {
    "a state dict": lambda s: s,
    "of a whole checkpoint": lambda s: {
        "state_dict": s,
        "epoch": 90,
        "optimizer": OPTIMIZER,
        "best_acc1": 76.1,
    },
    "of DataParallel": lambda s: {"state_dict": prefixed("module.", s), "epoch": torch.tensor(3)},
    "compiled": lambda s: {"model": prefixed("_orig_mod.", s)},
    "of both": lambda s: prefixed("_orig_mod.module.", s),
    "of Lightning": lambda s: {
        "state_dict": prefixed("model.", s) | {"loss.weight": torch.ones(7)},
        "loops": {},
    },
    "as a net": lambda s: {"net": prefixed("net.", s)},
    "of Decoupling": lambda s: {
        "state_dict_best": {
            "feat_model": {f"module.{n}": v for n, v in s.items() if not n.startswith("fc.")},
            "classifier": {"module.fc.weight": s["fc.weight"], "module.fc.bias": s["fc.bias"]},
        }
    },
    "of a semantic branch": lambda s: prefixed("semantic.", s),
    "with an average beside": lambda s: {"state_dict": s, "state_dict_ema": other(s)},
    "an average alone": lambda s: {"model_ema": prefixed("module.", s)},
    "without counts of batches": lambda s: {
        n: v for n, v in s.items() if not n.endswith("num_batches_tracked")
    },
    "in half precision": lambda s: {
        n: v.half().float().half() if v.is_floating_point() else v for n, v in s.items()
    },
}


@pytest.mark.parametrize("how", WRAPPINGS)
def test_weights_are_loaded_however_they_are_wrapped(how, tmp_path):
    state = torchvisions()
    if how == "in half precision":
        state = {n: v.half().float() if v.is_floating_point() else v for n, v in state.items()}
    torch.save(WRAPPINGS[how](state), tmp_path / "w.pth")
    network = loaded(tmp_path / "w.pth")
    if how == "without counts of batches":
        state = {n: v * 0 if n.endswith("num_batches_tracked") else v for n, v in state.items()}
    assert_has(network, state)
    assert network.classifier.weight.shape == (3, 1024)


def test_averaged_weights_are_taken_when_asked_for(tmp_path, caplog):
    state = torchvisions()
    torch.save({"model": state, "model_ema": other(state)}, tmp_path / "w.pth")
    assert_has(loaded(tmp_path / "w.pth", ema=True), other(state))
    assert "EMA" not in caplog.text
    loaded(tmp_path / "w.pth")
    assert "has averaged (EMA) weights too; --ema takes them" in caplog.text
    torch.save({"model": state}, tmp_path / "plain.pth")
    with pytest.raises(UserError, match=r"--ema: .*plain.pth has no averaged weights of shufflenet"):
        loaded(tmp_path / "plain.pth", ema=True)


@pytest.mark.parametrize("arch", ["resnet18", "timm:test_resnet", "resnet8"])
def test_every_family_takes_files_under_the_networks_own_names(arch, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = build_network(NetworkConfig(arch), 5)
    state = network.backbone.state_dict()
    if arch == "resnet18":
        with torch.device("meta"):
            names = set(torchvision.models.resnet18().state_dict())
        assert names - set(state) == {"fc.weight", "fc.bias"}
    save_file({n: v.contiguous() for n, v in state.items()}, tmp_path / "w.safetensors")
    assert_has(loaded(tmp_path / "w.safetensors", arch), state)


def test_what_is_left_out_is_said(tmp_path, caplog):
    torch.save(torchvisions(), tmp_path / "w.pth")
    loaded(tmp_path / "w.pth")
    n = len(torchvisions())
    assert (
        f"{n - 2} tensors of {n - 2} for {ARCH}; 2 (fc.weight, fc.bias) left out, the FC layer is new"
        in caplog.text
    )


class Odd:
    """An object whose class a reader would have to import."""


def damaged(state: State) -> dict[str, tuple[object, str]]:
    small = dict(list(state.items())[9:])
    return {
        "another network": (
            torchvisions("mobilenet_v2"),
            "holds no weights of shufflenet_v2_x0_5 (it has features.0.0",
        ),
        "some missing": (small, f"does not fit {ARCH}: "),
        "a wider network": (
            torchvisions("shufflenet_v2_x1_0"),
            "of another shape or kind (stage2.0.branch1.2.weight is ",
        ),
        "no tensors": ({"epoch": 3}, "holds no tensors"),
        "not finite": (
            state | {"conv1.0.weight": torch.full((24, 3, 3, 3), torch.nan)},
            "conv1.0.weight holds NaN",
        ),
        "whole numbers": (
            {n: v.to(torch.int8) for n, v in state.items()},
            "24×3×3×3 of int8, expected 24×3×3×3 of f",
        ),
        "numbers beyond float32": (
            state | {"conv1.0.weight": torch.full((24, 3, 3, 3), 1e300, dtype=torch.float64)},
            "infinite",
        ),
        "two sets": (
            {"encoder_q": state, "encoder_k": state},
            "2 sets of weights of shufflenet_v2_x0_5, under 'en",
        ),
        "a whole network": (nn.Identity(), "holds objects that only code can open"),
        "arguments of a program": (
            {"args": argparse.Namespace(lr=1), "state_dict": state},
            "holds objects that only",
        ),
    }


@pytest.mark.parametrize("how", list(damaged(torchvisions())))
def test_what_does_not_fit_is_refused(how, tmp_path, monkeypatch):
    content, says = damaged(torchvisions())[how]
    monkeypatch.chdir(write_images(tmp_path / "photos").parent)
    torch.save(content, "w.pth")
    train = [
        "train",
        "--root",
        "photos",
        "--arch",
        ARCH,
        "--image-size",
        "64",
        "--device",
        "cpu",
        "--out",
        "p",
    ]
    said = refuse(*train, "--weights", "w.pth", says=["w.pth", says])
    if how == "some missing":
        assert "8 (conv1.0.weight, conv1.1.weight, conv1.1.bias, …) missing" in said


def test_files_that_are_none_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(write_images(tmp_path / "photos").parent)
    train = ["train", "--root", "photos", *TINY, "--image-size", "16", "--out", "p"]
    Path("text.pth").write_text("weights")
    Path("text.safetensors").write_text("weights")
    refuse(
        *train,
        "--weights",
        "text.pth",
        says=["text.pth: not a file that torch wrote (it begins with b'weig')"],
    )
    refuse(*train, "--weights", "text.safetensors", says=["text.safetensors: damaged"])
    refuse(*train, "--weights", "none.pth", says=["--weights none.pth: no such file"])
    refuse(*train, "--weights", "./folder", says=["--weights ./folder: no such file"])
    refuse(
        *train,
        "--weights",
        "DEFAULT",
        says=["resnet8 has no pre-trained weights; leave it out, or name a file"],
    )
    refuse(*train, "--ema", says=["--ema: chooses among the weights in a file"])


def test_a_checkpoint_of_ours_is_a_file_of_weights_too(tmp_path, monkeypatch):
    """Its features begin the next training, under a new FC layer."""
    monkeypatch.chdir(write_images(tmp_path / "photos").parent)
    train = ["train", "--root", "photos", *TINY, "--image-size", "16"]
    succeed(*train, "--out", "first", "--seed", "4")
    succeed(*train, "--out", "next", "--weights", "first/checkpoint.pt", "--lr", "0", "--weight-decay", "0")
    first, second = (load_checkpoint(Path(out) / "checkpoint.pt") for out in ("first", "next"))
    for name, value in first.state.items():
        if name.startswith("features.") and "running_" not in name and "num_batches" not in name:
            assert torch.equal(second.state[name], value), name
    assert not torch.equal(second.state["classifier.weight"], first.state["classifier.weight"])
    assert (
        second.network["weights_digest"]
        == hashlib.sha256(Path("first/checkpoint.pt").read_bytes()).hexdigest()
    )


def test_a_training_resumes_without_the_file_that_it_began_with(tmp_path, monkeypatch):
    monkeypatch.chdir(write_images(tmp_path / "photos").parent)
    torch.save(torchvisions("resnet18"), "w.pth")
    shared = {"root": "photos", "arch": "resnet18", "weights": "w.pth", "image_size": 16, "batch_size": 8}
    whole, cut = (
        build(TrainConfig, shared | {"out": o, "epochs": 2, "device": "cpu"}) for o in ("whole", "cut")
    )
    train(whole, QUIET)
    train_interrupted(cut, 4)
    Path("w.pth").unlink()
    succeed("train", "--resume", "--out", "cut", "--device", "cpu")
    assert same_weights(saved(whole), saved(cut))
    refuse(
        "train", "--root", "photos", "--arch", "resnet18", "--weights", "w.pth", says=["w.pth: no such file"]
    )


def test_runs_that_began_with_other_files_are_other_configurations():
    """A file is known by what it holds: another path of it is the same, another file at its path is not."""

    def options(weights: str, digest: str | None) -> dict:
        network = {"arch": "resnet18", "width": None, "weights": weights, "weights_digest": digest}
        dataset = {"dataset": "imagefolder", "imbalance_factor": None, "val_per_class": 0}
        store = {"network": network, "dataset": dataset, "training": {"epochs": 1, "lr": 0.1}}
        return phase1_options(SimpleNamespace(config={"provenance": {"store": store}}))

    assert options("a/w.pth", "1" * 64) == options("b/w.pth", "1" * 64)
    assert options("a/w.pth", "1" * 64) != options("a/w.pth", "2" * 64)
    assert options("DEFAULT", None)["weights"] == "DEFAULT"
