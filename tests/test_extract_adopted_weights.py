"""Whole networks from files of other programs, however wrapped, or refused with what differs."""

from contextlib import nullcontext
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
import torchvision
from made_foreign import USERS, WRAPPINGS, State, apart, authors_network, averaged, prefixed, users_network
from safetensors.torch import save_file
from torch import nn

from extract.adoption.adopt import _note_first_step
from extract.adoption.whole_weights import load_whole
from extract.config import NetworkConfig
from extract.networks.parts import Network
from extract.networks.registry import build_network
from extract.networks.weights_file import best_prefix, load_weights, read_content
from store.errors import UserError

ARCHS = {"shufflenet_v2_x0_5": 64, USERS: 16}
K = 7
STATE = authors_network(USERS, K).state_dict()


@cache
def built(arch: str, n_classes: int, size: int) -> Network:
    with torch.random.fork_rng(devices=[]):
        return build_network(NetworkConfig(arch), n_classes, size)


def loaded(path: Path, arch: str = USERS, ema: bool = False, n_classes: int = K, size: int = 16) -> Network:
    network = deepcopy(built(arch, n_classes, ARCHS.get(arch, size)))
    load_whole(network, read_content(path), path, NetworkConfig(arch, ema=ema))
    return network.eval()


def written(content: object, folder: Path) -> Path:
    torch.save(content, folder / "w.pth")
    return folder / "w.pth"


def assert_is(network: Network, authors: nn.Module, size: int) -> None:
    """The same weights under the authors' names, and the same logits."""
    own = network.original().state_dict()
    for name, value in authors.state_dict().items():
        assert torch.equal(own[name], value), name
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(network(images), authors(images), atol=1e-5)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("how", [*WRAPPINGS, "safetensors"])
def test_a_network_is_loaded_whole_however_it_is_wrapped(how, arch, tmp_path):
    authors = authors_network(arch, K)
    if how == "safetensors":
        path = tmp_path / "w.safetensors"
        save_file({n: v.contiguous() for n, v in authors.state_dict().items()}, path)
    else:
        path = written(WRAPPINGS[how](authors.state_dict()), tmp_path)
    assert_is(loaded(path, arch), authors, ARCHS[arch])


def test_averaged_weights_are_taken_with_their_own_fc_layer(tmp_path):
    for content in (
        {"model": STATE, "model_ema": averaged(STATE)},
        apart(STATE) | {"ema": apart(averaged(STATE))},
    ):
        path = written(content, tmp_path)
        assert torch.equal(loaded(path).classifier.weight, STATE["head.weight"])
        assert torch.equal(loaded(path, ema=True).classifier.weight, STATE["head.weight"] + 1)


@pytest.mark.parametrize("arch", ["resnet18", "resnet8", "timm:test_resnet"])
def test_every_family_loads_what_it_exports(arch, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = build_network(NetworkConfig(arch), K).eval()
    path = written(network.original().state_dict(), tmp_path)
    again = loaded(path, arch, size=64)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in again.state_dict().items())


def test_nothing_is_left_out_in_silence(tmp_path, caplog):
    path = written({"state_dict": prefixed("module.", STATE), "loss": {"weight": torch.ones(7)}}, tmp_path)
    loaded(path)
    assert f"{len(STATE)} tensors under 'state_dict.module.' for {USERS}, its FC layer among" in caplog.text
    assert "1 (loss.weight) left out, which are no part of it" in caplog.text
    assert "converted" not in caplog.text


def test_what_no_file_tells_of_a_network_is_said(tmp_path, caplog):
    """torchvision's GoogLeNet scales channels where it is made with weights, and not where without."""
    _note_first_step("googlenet", "w.pth")
    assert "googlenet is taken to be made with transform_input=True" in caplog.text
    caplog.clear()
    _note_first_step("resnet18", "w.pth")
    assert not caplog.text


def test_other_precisions_are_converted_and_said(tmp_path, caplog):
    half = {n: v.half() if v.is_floating_point() else v for n, v in STATE.items()}
    network = loaded(written(half, tmp_path))
    assert network.classifier.weight.dtype == torch.float32
    assert torch.equal(network.classifier.weight, half["head.weight"].float())
    assert "its weights are float16; they are converted to float32" in caplog.text


def test_an_fc_layer_without_bias_gets_one_of_zeros(tmp_path, caplog):
    network = loaded(written({n: v for n, v in STATE.items() if n != "head.bias"}, tmp_path))
    assert not network.classifier.bias.any()
    assert "its FC layer has no bias; ours begins with zeros" in caplog.text


class Convolved(nn.Module):
    """The FC layer of this one is a 1×1 convolution."""

    def __init__(self, n_classes: int = 3):
        super().__init__()
        self.body, self.head = users_network().body, nn.Conv2d(12, n_classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, K)."""
        return self.head(torch.relu(self.body(images)).mean((2, 3), keepdim=True)).flatten(1)


def test_an_fc_layer_that_is_a_convolution(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        authors = Convolved(K).eval()
    network = loaded(written(authors.state_dict(), tmp_path), f"{__name__}:Convolved")
    assert_is(network, authors, 16)


def without(*names: str) -> State:
    return {name: value for name, value in STATE.items() if name not in names}


BAD = {
    "another number of classes": (
        STATE,
        "its FC layer head.weight is for 7 classes, but the images are of 3",
    ),
    "no FC layer": (without("head.weight", "head.bias"), "has no head.weight for the FC layer"),
    "two FC layers": (
        {
            "m": without("head.weight", "head.bias"),
            "a": {"head.weight": torch.ones(7, 12)},
            "b": STATE["body.0.bias"],
        }
        | {"c.head.weight": torch.zeros(7, 12)},
        "has 2 (a.head.weight, c.head.weight) for the FC layer",
    ),
    "a missing tensor": (without("body.3.bias"), "8 of 9 tensors match, 1 (body.3.bias) missing"),
    "another width": (STATE | {"body.3.bias": torch.zeros(13)}, "body.3.bias is 13 of float32, expected 12"),
    "a narrow FC layer": (STATE | {"head.weight": torch.zeros(K, 11)}, "head.weight is 7×11 of float32"),
    "NaN in the bias": (STATE | {"head.bias": torch.full((K,), torch.nan)}, "head.bias holds NaN"),
    "infinity": (STATE | {"body.0.bias": torch.full((8,), torch.inf)}, "body.0.bias holds NaN or infinite"),
}


def deeper(arch: str, n_classes: int = K) -> State:
    """The state dict of a torchvision network, without its numbers."""
    with torch.device("meta"):
        state = torchvision.models.get_model(arch, num_classes=n_classes).state_dict()
    return {name: torch.ones(value.shape, dtype=value.dtype) for name, value in state.items()}


@pytest.mark.parametrize("whole", [True, False])
def test_a_deeper_network_of_the_kind_is_not_cut_down_in_silence(whole, tmp_path):
    """Every tensor of resnet18 is in resnet34's state dict, in its shape."""
    path = written({"state_dict": prefixed("module.", deeper("resnet34"))}, tmp_path)
    says = r"layer1.2.conv1.weight.* tensors more than resnet18 in the same modules"
    network = deepcopy(built("resnet18", K, 64))
    with pytest.raises(UserError, match=says):
        load_weights(network, path, "resnet18", False) if not whole else loaded(path, "resnet18", size=64)


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("body.1.se.weight", True),
        ("body.7.weight", True),
        ("aux.weight", False),
        ("criterion.body.weight", False),
        ("body.0.total_ops", False),
    ],
)
def test_what_lies_in_a_networks_modules_and_what_beside_them(name, refused, tmp_path):
    path = written(STATE | {name: torch.ones(3)}, tmp_path)
    with pytest.raises(UserError, match="in the same modules") if refused else nullcontext():
        loaded(path)


def test_a_head_of_several_layers_is_the_users_own_network(tmp_path):
    state = without("head.weight", "head.bias")
    path = written(
        state | {"head.1.weight": STATE["head.weight"], "head.1.bias": STATE["head.bias"]}, tmp_path
    )
    with pytest.raises(UserError, match=r"but head.1.weight: its head is another one, so name a function"):
        loaded(path)


@pytest.mark.parametrize("what", BAD)
def test_what_does_not_fit_is_refused_with_its_name(what, tmp_path):
    content, says = BAD[what]
    with pytest.raises(UserError) as refused:
        loaded(written(content, tmp_path), n_classes=3 if what == "another number of classes" else K)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_one_set_under_two_prefixes_is_not_called_two(tmp_path):
    for n in (8, 9):
        state = dict(list(STATE.items())[:n])
        mixed = {("module." if k % 2 else "") + name: value for k, (name, value) in enumerate(state.items())}
        both = {f"{prefix}.{name}": value for prefix in "ab" for name, value in state.items()}
        one = r"has one set .* in 2 parts, .* '' and 'module\.'"
        for found, says in ((mixed, one), (both, "has 2 sets")):
            with pytest.raises(UserError, match=says):
                best_prefix(found, state, tmp_path / "w.pth", USERS, ema=False)
    three = {("a.", "b.", "c.c.")[k % 3] + name: value for k, (name, value) in enumerate(STATE.items())}
    with pytest.raises(UserError, match=r"in 3 parts, .* 'a\.' and 'b\.' and 'c\.c\.'"):
        best_prefix(three, STATE, tmp_path / "w.pth", USERS, ema=False)
