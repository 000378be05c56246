"""A network whose FC layer is a 1×1 convolution: trained from a file, used, and handed out again."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from bad_input import succeed, write_images
from PIL import Image
from torch import nn

import tailcache as tc

pytestmark = pytest.mark.usefixtures("in_tmp_path")
FACTORY = """
from torch import nn

def net(bias=True, n_classes=3):
    pooling, head = nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, n_classes, 1, bias=bias)
    return nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), pooling, nn.Dropout(0.1), head, nn.Flatten())

def linear(n_classes=3):
    head = nn.Linear(6, n_classes, bias=False)
    return nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
"""
MODULE = "convolved_nets"


def authors_own(function: str, **arguments) -> nn.Module:
    names: dict = {}
    exec(FACTORY, names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        return names[function](**arguments)


def trained(function: str, *options: str) -> list[str]:
    """Options that name a checkpoint of three classes, trained for an epoch."""
    Path(f"{MODULE}.py").write_text(FACTORY)
    root = write_images(Path("photos"))
    arch = ["--arch", f"{MODULE}:{function}"]
    data = ["--root", root, "--image-size", "16", "--epochs", "1", "--batch-size", "8", "--device", "cpu"]
    succeed("train", *data, *arch, *options, "--out", "p")
    return ["--ckpt", "p/checkpoint.pt", *arch]


def test_it_goes_the_whole_way():
    own = authors_own("net", n_classes=7)
    torch.save(own.state_dict(), "own.pt")
    named = trained("net", "--weights", "own.pt", "--lr", "1e-9")
    state = torch.load("p/checkpoint.pt", weights_only=True)["state"]
    torch.testing.assert_close(state["features.network.0.weight"], own.state_dict()["0.weight"])
    assert state["classifier.weight"].shape == (3, 6)
    succeed("extract", *named, "--store", "feats.zarr", "--dtype", "float32", "--device", "cpu")
    assert tc.open_store("feats.zarr").map_shape == (18, 4, 4, 6)
    assert succeed("export", *named, "--out", "n.pt").stderr == ""
    network = authors_own("net")
    network.load_state_dict(torch.load("n.pt", weights_only=True))
    assert network[4].weight.shape == (3, 6, 1, 1)
    succeed("predict", *named, "photos/test", "--out", "p.csv", "--top", "3", "--device", "cpu")
    check_predictions(pd.read_csv("p.csv"), network.eval())


def check_predictions(frame: pd.DataFrame, network: nn.Module) -> None:
    """Raise AssertionError unless they are a network's, for images prepared by hand."""
    transform = torch.load("p/checkpoint.pt", weights_only=True)["transform"]
    mean, std = (torch.tensor(transform[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    for row in frame.itertuples():
        small = Image.open(row.path).resize((16, 16), Image.Resampling.BILINEAR)
        image = (torch.from_numpy(np.asarray(small).transpose(2, 0, 1) / np.float32(255)) - mean) / std
        with torch.inference_mode():
            expected = network(image[None])[0].softmax(0).sort(descending=True).values
        found = torch.tensor([row.probability_1, row.probability_2, row.probability_3], dtype=torch.float32)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("weights", ["state-dict", "safetensors"])
@pytest.mark.parametrize(
    ("function", "layer"), [("net", "Conv2d(6, 3, 1)"), ("linear", "Linear(6, 3)")], ids=["convolution", "FC"]
)
def test_a_bias_that_the_authors_network_lacks_is_said_with_what_to_do(function, layer, weights):
    named = trained(function, *(["--arch-option", "bias=False"] if function == "net" else []))
    said = succeed("export", *named, "--format", weights, "--out", "n.bin").stderr
    line = f"network.set_submodule('4', torch.nn.{layer})"
    assert said.startswith("tailcache: note: n.bin: holds 4.bias, a bias of the FC layer that")
    assert (line in said, said.count("\n")) == (True, 1)
    network = authors_own(function, **({"bias": False} if function == "net" else {}))
    state = torch.load("n.bin", weights_only=True) if weights == "state-dict" else None
    state = state or safetensors.torch.load_file("n.bin")
    with pytest.raises(RuntimeError, match="Unexpected"):
        network.load_state_dict(state)
    with torch.random.fork_rng(devices=[]):
        exec(line, {"network": network, "torch": torch})
    network.load_state_dict(state)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = tc.load_network("p/checkpoint.pt", arch=named[-1])(images)
        torch.testing.assert_close(network.eval()(images), expected)
    said = succeed("export", *named, "--format", "torchscript", "--out", "n.ts").stderr
    assert said == ""  # which brings its own FC layer
