"""A network of any make as features and one FC layer: found in what flows, and proved on random images."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy

import torch
from torch import nn

from extract.heads.in_network import HeadModule
from extract.networks.flow import (
    FailedError,
    LastPooled,
    NotExactError,
    Returned,
    Split,
    as_map,
    find_split,
)
from extract.networks.parts import Network
from store.errors import UserError

N_IMAGES = 2  # of a proof
TOLERANCE = 1e-5  # of the largest logit
ALONE_TOLERANCE = 1e-2  # the same, where batches of other sizes may be computed in other ways
STEP = 32  # pixels by which images grow for a second proof: most networks halve their maps five times


class _ReachedError(Exception):
    """The FC layer is reached: all that is behind it is left out.

    Attributes:
        pooled: (B, C) what it is given.
    """

    def __init__(self, pooled: torch.Tensor):
        super().__init__()
        self.pooled = pooled


class _End(nn.Module):
    """In place of an FC layer."""

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        raise _ReachedError(pooled)


class MapOf(nn.Module):
    """A network up to its FC layer.

    Attributes:
        network: as it was, but for its FC layer.
    """

    def __init__(self, network: nn.Module, split: Split):
        super().__init__()
        self.network, self._layout, self._makes_map = network, split.layout, split.makes_map

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, H', W') feature maps of (B, 3, H, W) images, in evaluation."""
        maker = self._makes_map
        with LastPooled() if maker is None else Returned(self.network.get_submodule(maker)) as last:
            self.pooled(images)
        if last.tensor is None:
            raise NotExactError("its FC layer is used before its pooling, too")
        return as_map(last.tensor, self._layout)

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C) what the FC layer is given, in training after dropout, if there is any."""
        try:
            self.network(images)
        except _ReachedError as reached:
            return reached.pooled.flatten(1)
        raise NotExactError("its FC layer shares its weights with the one that makes the logits")


class FoundNetwork(Network):
    """A network of any make. In training it runs as its authors wrote it, dropout before the FC layer too.

    Attributes:
        classifier_name: of its FC layer, among the modules of the network as it was.
        convolves: whether that was a 1×1 convolution, with weights (K, C, 1, 1).
        had_bias: whether it had a bias.
    """

    def __init__(self, network: nn.Module, split: Split):
        classifier, end = network.get_submodule(split.classifier), _End()
        names = [name for name, child in network.named_modules(remove_duplicate=False) if child is classifier]
        for name in names:  # `self.head = self.fc` gives it two
            network.set_submodule(name, end)
        super().__init__(MapOf(network, split), _as_linear(classifier))
        self.classifier_name, self._names = split.classifier, names
        self.convolves, self.had_bias = isinstance(classifier, nn.Conv2d), classifier.bias is not None

    @property
    def backbone(self) -> nn.Module:
        """All but the FC layer, with parameters under the names that its authors gave them."""
        return self.features.network

    @property
    def backbone_prefix(self) -> str:
        """Nothing: the names of `backbone` are its authors' own."""
        return ""

    @property
    def classifier_names(self) -> list[str]:
        """The names of the FC layer among its authors'; `self.head = self.fc` gives it two."""
        return self._names

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C) what the FC layer is given, in training after dropout; in float32 under autocast too."""
        return self.features.pooled(images).float() if self.training else super().pooled(images)

    def original(self) -> nn.Module:
        """A copy as its authors wrote it, with this FC layer in the place of theirs."""
        network = deepcopy(self.features.network)
        classifier = _as_convolution(self.classifier) if self.convolves else deepcopy(self.classifier)
        for name in self._names:
            network.set_submodule(name, classifier)
        return network


def _as_linear(classifier: nn.Linear | nn.Conv2d) -> nn.Linear:
    """An FC layer that shares its numbers with a 1×1 convolution of all channels; others as they are."""
    if isinstance(classifier, nn.Linear):
        return classifier
    linear = nn.Linear(classifier.in_channels, classifier.out_channels, device="meta")
    linear.weight = nn.Parameter(classifier.weight.detach().flatten(1))
    linear.bias = classifier.bias
    return linear


def _as_convolution(classifier: nn.Linear) -> nn.Module:
    """A 1×1 convolution that computes what an FC layer does, with its own numbers.

    A head with further parts is put between maps of one position.
    """
    if isinstance(classifier, HeadModule):
        n_classes = classifier.out_features
        return nn.Sequential(nn.Flatten(), deepcopy(classifier), nn.Unflatten(1, (n_classes, 1, 1)))
    convolution = nn.Conv2d(classifier.in_features, classifier.out_features, 1, device="meta")
    convolution.weight = nn.Parameter(classifier.weight.detach().clone()[:, :, None, None])
    convolution.bias = deepcopy(classifier.bias)
    return convolution


def take_apart(network: nn.Module, image_size: int) -> FoundNetwork:
    """Find a network's feature map and FC layer, and prove that its logits are that layer on the map's mean.

    The proof is in float32, with random values in the FC layer (one of zeros would prove anything), at two
    image sizes if the network takes a second one. On the meta device there is none.

    Args:
        network: on the CPU or the meta device; it becomes a part of what is returned.
        image_size: side of its images in pixels.

    Raises:
        NotExactError: it cannot be taken apart, and why.
        FailedError: it cannot be run on images of that size.
    """
    network.eval()
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    if device.type != "meta":
        network.float().cpu()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(N_IMAGES, 3, image_size, image_size, generator=generator)
    split = find_split(network, images.to("meta") if device.type == "meta" else images)
    if device.type == "meta":
        return FoundNetwork(network, split)
    with (
        _randomised(network.get_submodule(split.classifier), generator),
        torch.no_grad(),
    ):  # what a network keeps of a pass must be of use in training
        batches = [(images, network(images))]
        larger = torch.randn(N_IMAGES, 3, *[image_size + STEP] * 2, generator=generator)
        with suppress(Exception):  # a network of one image size may refuse others in any way
            batches.append((larger, network(larger)))
        found = FoundNetwork(network, split).eval()
        for batch, logits in batches:
            _check_same(found(batch), logits)
        alone = found(images[:1])
    if _apart(alone, batches[0][1][:1]) > ALONE_TOLERANCE:
        raise NotExactError("what it says of an image depends on the other images of its batch")
    return found


@contextmanager
def _randomised(classifier: nn.Linear | nn.Conv2d, generator: torch.Generator) -> Iterator[None]:
    """With random values in an FC layer, which gets its own again."""
    own = {name: parameter.detach().clone() for name, parameter in classifier.named_parameters()}
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in classifier.named_parameters():
                parameter.copy_(own[name])


def _apart(found: torch.Tensor, logits: torch.Tensor) -> float:
    return float((found - logits).abs().max() / logits.abs().max())


def _check_same(found: torch.Tensor, logits: torch.Tensor) -> None:
    apart = _apart(found, logits)
    if not apart <= TOLERANCE:
        raise NotExactError(
            "its FC layer on the mean of its feature map gives other logits than the network "
            f"({apart:.1e} of the largest apart, {TOLERANCE:.0e} at most)"
        )


def refusal(network: nn.Module, image_size: int) -> str | None:
    """Why a network cannot be used, None if it can: on the meta device, as far as calls show it."""
    try:
        take_apart(network, image_size)
    except (NotExactError, FailedError) as error:
        return _in_words(error)
    return None


def _in_words(error: NotExactError | FailedError) -> str:
    if isinstance(error, FailedError):
        return str(error)
    return (
        "refused, since class activation maps need global average pooling followed by one FC layer, and "
        f"{error}"
    )


def with_new_classifier(network: nn.Module, image_size: int, n_classes: int, arch: str) -> FoundNetwork:
    """A network taken apart, with a new FC layer, drawn from torch's global generator.

    Raises:
        UserError: it cannot be taken apart, or run on images of that size.
    """
    try:
        found = take_apart(network, image_size)
    except (NotExactError, FailedError) as error:
        raise UserError(f"--arch {arch}: {_in_words(error)}") from error
    found.classifier = nn.Linear(found.classifier.in_features, n_classes)
    return found
