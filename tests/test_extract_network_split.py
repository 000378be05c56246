"""Networks of any make: the map whose mean their FC layer sees is found and proved, or they are refused."""

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from extract.networks import found
from extract.networks.flow import NotExactError, find_split
from extract.networks.found import FoundNetwork, take_apart
from extract.networks.parts import pool

SIZE, K = 16, 5


class Made(nn.Module):
    """A convolution with stride 4, and what a test makes of its maps (B, 6, 4, 4) from there on."""

    def __init__(self, after: Callable[["Made", torch.Tensor], torch.Tensor], **modules: nn.Module):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, 4)
        self.norm, self.fc, self.dropout = nn.LayerNorm(6), nn.Linear(6, K), nn.Dropout(0.5)
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, K)
        self.neck, self.twin = nn.BatchNorm1d(6), nn.Linear(6, K)
        self.conv, self.square = nn.Conv2d(6, K, 1), nn.Conv2d(6, 6, 1)
        self.grouped, self.wide = nn.Conv2d(6, 6, 1, groups=2), nn.Conv2d(6, K, 2)
        self.padded = nn.Conv2d(6, K, 1, stride=2, padding=1)
        self.twin.weight = self.fc.weight
        for name, module in modules.items():
            setattr(self, name, module)
        self._after = after

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self._after(self, self.stem(images))


EXACT = {
    "a function activates and pools": lambda net, x: net.fc(F.adaptive_avg_pool2d(F.relu(x), 1).flatten(1)),
    "activated in place": lambda net, x: net.fc(F.relu(x, inplace=True).mean((2, 3))),
    "kept axes are cut off": lambda net, x: net.fc(x.mean((-1, -2), keepdim=True)[:, :, 0, 0]),
    "modules pool and flatten": lambda net, x: net.fc(nn.Flatten()(nn.AdaptiveAvgPool2d((1, 1))(x))),
    "a window as large as the map": lambda net, x: net.fc(nn.AvgPool2d(x.shape[2:])(x).view(len(x), -1)),
    "dropout before the FC layer": lambda net, x: net.fc(net.dropout(x.mean((2, 3)))),
    "channels last": lambda net, x: net.fc(net.norm(x.permute(0, 2, 3, 1)).mean((1, 2))),
    "tokens": lambda net, x: net.fc(net.norm(x.flatten(2).transpose(1, 2)).mean(dim=1)),
    "tokens, channels first": lambda net, x: net.fc(torch.mean(x.sigmoid().flatten(2), -1)),
    "squeeze and excitation": lambda net, x: net.fc(
        F.avg_pool2d(x * x.mean((2, 3), True).sigmoid(), 4).flatten(1)
    ),
    "logits are reshaped": lambda net, x: net.fc(x.mean((2, 3))).squeeze().reshape(len(x), K),
}


CONVOLVED = {
    "a 1×1 convolution": lambda net, x: net.conv(F.adaptive_avg_pool2d(x.relu(), 1)).flatten(1),
    "a 1×1 convolution after dropout": lambda net, x: net.conv(net.dropout(x.mean((2, 3), True)))[..., 0, 0],
}


@pytest.mark.parametrize("bias", [True, False], ids=["", "without bias"])
@pytest.mark.parametrize("how", CONVOLVED)
def test_a_1x1_convolution_behind_the_pooling_is_an_fc_layer(how, bias):
    """The same sum; the network as its authors wrote it gets a convolution again."""
    network = made(CONVOLVED[how])
    if not bias:
        network.conv.bias = None
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits, weight = network(images), network.conv.weight.clone()
    found = take_apart(network, SIZE)
    assert (found.classifier_name, found.convolves, found.had_bias) == ("conv", True, bias)
    assert torch.equal(found.classifier.weight, weight.flatten(1))  # it has its own values again
    with torch.inference_mode():
        torch.testing.assert_close(found(images), logits)
        torch.testing.assert_close(found.original()(images), logits)
    state = found.original().state_dict()
    assert state["conv.weight"].shape == (K, 6, 1, 1)
    assert ("conv.bias" in state) is bias
    with torch.random.fork_rng(devices=[]):  # which dropout draws from
        found.train()(images).sum().backward()
    assert found.classifier.weight.grad.shape == (K, 6)


@pytest.mark.parametrize("how", EXACT)
def test_the_fc_layer_on_the_mean_of_the_map_gives_the_networks_logits(how):
    network = made(EXACT[how])
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits, weight = network(images), network.fc.weight.clone()
        found = take_apart(network, SIZE)
        maps = found.features(images)
        assert maps.shape == (3, 6, 4, 4)
        assert torch.equal(found.classifier.weight, weight)  # it has its own values again
        torch.testing.assert_close(found(images), logits)
        torch.testing.assert_close(maps.mean((2, 3)) @ weight.T + found.classifier.bias, logits)
        position = found.features(shifted(images))  # rows and columns are those of the image
        torch.testing.assert_close(position[:, :, :, 1:], maps[:, :, :, :-1])


@pytest.mark.parametrize(
    ("how", "module"),
    [
        ("kept axes are cut off", "stem"),
        ("activated in place", "stem"),  # the module's tensor, changed after it returned
        ("channels last", "norm"),
        ("a function activates and pools", None),
        ("tokens, channels first", None),
    ],
)
def test_a_map_that_a_module_returns_is_taken_from_there(how, module):
    """Watching every call would take microseconds each; it is done where no module returns the map."""
    taken, images = take_apart(made(EXACT[how]), SIZE), torch.ones(1, 3, SIZE, SIZE)
    with mock.patch.object(found, "LastPooled", wraps=found.LastPooled) as watched, torch.inference_mode():
        torch.testing.assert_close(taken.classify(pool(taken.features(images))), taken(images))
    assert (find_split(made(EXACT[how]), images).makes_map, watched.called) == (module, module is None)


def test_a_module_that_runs_twice_does_not_tell_which_map_it_is():
    def after(net, x):
        return net.fc(net.square(net.square(x)).mean((2, 3)))

    assert find_split(made(after), torch.ones(1, 3, SIZE, SIZE)).makes_map is None
    assert isinstance(take_apart(made(after), SIZE), FoundNetwork)


def made(after) -> Made:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Made(after).eval()


def shifted(images: torch.Tensor) -> torch.Tensor:
    """The same a position of the map, four pixels, to the right."""
    return images.roll(4, dims=3)


INEXACT = {
    "a norm": (lambda net, x: net.fc(net.norm(x.mean((2, 3)))), "layer_norm stands between its pooling"),
    "an activation in place": (lambda net, x: net.fc(x.mean((2, 3)).relu_()), "relu"),
    "two FC layers": (lambda net, x: net.second(net.first(x.mean((2, 3))).tanh()), "more than one FC layer"),
    "two FC layers in place": (
        lambda net, x: net.second(net.first(x.mean((2, 3))).relu_()),
        "more than one FC layer",
    ),
    "the greatest": (lambda net, x: net.fc(x.amax((2, 3))), "amax stands between"),
    "mean and greatest": (lambda net, x: net.fc((x.mean((2, 3)) + x.amax((2, 3))) / 2), "div"),
    "a class token": (lambda net, x: net.fc(x.flatten(2).transpose(1, 2)[:, 0]), "one token"),
    "a softmax": (lambda net, x: net.fc(x.mean((2, 3))).softmax(1), "its logits come from softmax"),
    "several positions": (
        lambda net, x: net.fc(F.adaptive_avg_pool2d(x, (1, 2))[..., 0].flatten(1)),
        "one token",
    ),
    "rows alone": (lambda net, x: net.fc(x.mean(2)[..., 0]), "one token"),
    "weights that are computed": (
        lambda net, x: F.linear(x.mean((2, 3)), F.normalize(net.fc.weight, dim=1)),
        "the weights of its FC layer are computed",
    ),
    "a convolution whose weights are computed": (
        lambda net, x: F.conv2d(x.mean((2, 3), True), net.fc.weight[..., None, None]).flatten(1),
        "the weights of its FC layer are computed",
    ),
    "a convolution of groups": (lambda net, x: net.grouped(x.mean((2, 3), True)).flatten(1), "conv2d"),
    "a convolution of several positions": (
        lambda net, x: net.wide(F.adaptive_avg_pool2d(x, 2)).flatten(1),
        "conv2d",
    ),
    "a convolution of a padded position": (
        lambda net, x: net.padded(x.mean((2, 3), True)).flatten(1),
        "conv2d",
    ),
    "two convolutions": (
        lambda net, x: net.conv(net.square(x.mean((2, 3), True))).flatten(1),
        "conv2d stands between its pooling and its FC layer 'conv'",
    ),
    "a dictionary": (lambda net, x: {"logits": net.fc(x.mean((2, 3)))}, "returns a dict"),
    "weights shared with another layer": (lambda net, x: net.twin(x.mean((2, 3))), "shares its weights"),
    "batch normalisation": (lambda net, x: net.fc(net.neck(x.mean((2, 3)))), "batch_norm stands between"),
    "pooled again": (lambda net, x: (net.fc(x.mean((2, 3))), x.mean())[0], "pools again"),
    "tokens of no square": (lambda net, x: net.fc(x.flatten(2)[..., 3:].mean(2)), "13 tokens"),
}


@pytest.mark.parametrize("how", INEXACT)
def test_what_is_not_exact_is_refused_for_its_reason(how):
    after, reason = INEXACT[how]
    with pytest.raises(NotExactError, match=reason):
        take_apart(made(after), SIZE)


HIDDEN = {  # from a look at calls, not from the proof
    "numbers changed behind autograd": lambda net, x: net.fc(doubled(x.mean((2, 3)))),
    "channels in another order": lambda net, x: net.fc(
        x.mean((2, 3)).view(-1, 2, 3).transpose(1, 2).reshape(-1, 6)
    ),
}


def doubled(pooled: torch.Tensor) -> torch.Tensor:
    pooled.data.mul_(2)
    return pooled


@pytest.mark.parametrize("how", HIDDEN)
@pytest.mark.parametrize("zero", [False, True], ids=["", "FC layer of zeros"])
def test_the_proof_finds_what_calls_do_not_show(how, zero):
    network = made(HIDDEN[how])
    if zero:
        nn.init.zeros_(network.fc.weight)
    with pytest.raises(NotExactError, match="gives other logits"):
        take_apart(network, SIZE)


def test_a_network_that_pools_otherwise_at_another_size_is_refused():
    def after(net, x):
        return net.fc(x.mean((2, 3)) if x.shape[2] == 4 else F.avg_pool2d(x, 4)[:, :, :1, :1].flatten(1))

    with pytest.raises(NotExactError, match="other logits"):
        take_apart(made(after), SIZE)


def test_a_network_of_one_image_size_is_proved_at_that_one():
    def after(net, x):
        if x.shape[2:] != (4, 4):
            raise RuntimeError("16 pixels only")
        return net.fc(x.mean((2, 3)))

    assert isinstance(take_apart(made(after), SIZE), FoundNetwork)


def test_training_runs_the_network_as_it_was_written():
    """Dropout before the FC layer acts in training; pooled features come without it in evaluation."""
    found = take_apart(made(EXACT["dropout before the FC layer"]), SIZE)
    images = torch.ones(64, 3, SIZE, SIZE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trained = found.train()(images)
    assert trained.std(dim=0).max() > 0.01
    trained.sum().backward()
    assert found.features.network.stem.weight.grad.abs().max() > 0
    found.eval()  # equal images; products may round the last rows of a batch otherwise than the first
    assert found(images).std(dim=0).max() < 1e-6
    assert pool(found.features(images)).std(dim=0).max() < 1e-6


def test_a_network_on_the_meta_device_is_found_and_not_run():
    with torch.device("meta"):
        network = Made(EXACT["channels last"])
    assert take_apart(network, SIZE).features(torch.empty(1, 3, 32, 32, device="meta")).shape == (1, 6, 8, 8)
