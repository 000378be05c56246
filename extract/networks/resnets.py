"""Networks as two parts: a feature sub-network and one FC classifier with global average pooling between.

That shape is what class activation maps need (paper, sec. 4.1): the classifier's weights, applied to every
position of the last feature map, say where the evidence for a class lies.
"""

import warnings
from collections import OrderedDict
from dataclasses import dataclass

import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

from extract.config import NetworkConfig
from extract.networks.names import ARCHITECTURES, refuse_unsuited, unknown
from store.errors import UserError, check_at_least


class Network(nn.Module):
    """Features, global average pooling, one FC layer.

    Attributes:
        features: (B, 3, H, W) images to (B, C, H', W') feature maps ("Block4").
        classifier: the FC layer, C to K.
    """

    def __init__(self, features: nn.Module, classifier: nn.Linear):
        super().__init__()
        self.features = features
        self.classifier = classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, K), in float32 under autocast too."""
        return self.classify(pool(self.features(images)))

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        """Logits (B, K) of float32 pooled features (B, C), never in reduced precision."""
        with torch.autocast(pooled.device.type, enabled=False):
            return self.classifier(pooled)


def pool(feature_map: torch.Tensor) -> torch.Tensor:
    """Global average pooling of (B, C, H, W) in float32, whatever the maps' precision: (B, C)."""
    return feature_map.float().mean(dim=(2, 3))


@dataclass(frozen=True)
class CifarArchitecture:
    """Residual stages of basic blocks behind a 3×3 stem; the second and later stages halve H and W."""

    blocks: tuple[int, ...]
    width: int
    projection: bool  # shortcuts that change shape: 1×1 convolution, or zero-padded channels


# ResNet-20 to 56: He et al. 2016, sec. 4.2 (option A shortcuts). ResNet-18/34: their ImageNet stages.
CIFAR_ARCHITECTURES = {
    "resnet20": CifarArchitecture((3, 3, 3), 16, projection=False),
    "resnet32": CifarArchitecture((5, 5, 5), 16, projection=False),
    "resnet44": CifarArchitecture((7, 7, 7), 16, projection=False),
    "resnet56": CifarArchitecture((9, 9, 9), 16, projection=False),
    "resnet18-cifar": CifarArchitecture((2, 2, 2, 2), 64, projection=True),
    "resnet34-cifar": CifarArchitecture((3, 4, 6, 3), 64, projection=True),
}


class ZeroPadShortcut(nn.Module):
    """Option A of He et al.: every second position, new channels filled with zeros; no parameters."""

    def __init__(self, new_channels: int, stride: int):
        super().__init__()
        self.new_channels, self.stride = new_channels, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        before = self.new_channels // 2
        return nn.functional.pad(x, (0, 0, 0, 0, before, self.new_channels - before))


def default_image_size(arch: str) -> int:
    """Pixels a side that an architecture is usually trained on: 32 behind a CIFAR stem, else 224."""
    return 32 if arch in CIFAR_ARCHITECTURES else 224


def build_network(config: NetworkConfig, n_classes: int) -> Network:
    """Make a network; new layers are drawn from torch's global generator.

    Raises:
        UserError: an unknown architecture, one whose head is not GAP + one FC, or weights that are
            not to be had.
    """
    check_network(config)
    if config.arch in CIFAR_ARCHITECTURES:
        return _cifar_network(CIFAR_ARCHITECTURES[config.arch], config.width, n_classes)
    return _torchvision_network(config, n_classes)


def check_network(config: NetworkConfig) -> None:
    """Raise what `build_network` would, but for weights that are not to be had, without building."""
    check_at_least(config, width=1)
    if config.arch not in CIFAR_ARCHITECTURES:
        _check_torchvision_architecture(config.arch)
    refuse_unsuited(config)


def _cifar_network(architecture: CifarArchitecture, width: int | None, n_classes: int) -> Network:
    channels = width or architecture.width
    layers = [
        nn.Conv2d(3, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    ]
    for stage, n_blocks in enumerate(architecture.blocks):
        for block in range(n_blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(_block(channels, channels * stride, stride, architecture.projection))
            channels *= stride  # halving H and W doubles the channels
    network = Network(nn.Sequential(*layers), nn.Linear(channels, n_classes))
    for module in network.features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def _block(before: int, after: int, stride: int, projection: bool) -> BasicBlock:
    shortcut = None
    if stride > 1 and projection:
        convolution = nn.Conv2d(before, after, 1, stride, bias=False)
        shortcut = nn.Sequential(convolution, nn.BatchNorm2d(after))
    elif stride > 1:
        shortcut = ZeroPadShortcut(after - before, stride)
    return BasicBlock(before, after, stride, shortcut)


def _check_torchvision_architecture(arch: str) -> None:
    if arch not in torchvision.models.list_models(module=torchvision.models):
        raise unknown(arch)
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # GoogLeNet's, of its weights
            refuse_other_heads(torchvision.models.get_model(arch), arch)
    except NotImplementedError as error:  # RegNet reads its widths off tensors, which meta tensors refuse
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"--arch {arch}: refused, its layout is unknown; expected one of {known}") from error


def _torchvision_network(config: NetworkConfig, n_classes: int) -> Network:
    try:
        model = torchvision.models.get_model(config.arch, weights=config.weights)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"--weights {config.weights}: cannot be had for {config.arch} ({error}); "
            "expected DEFAULT or a name from torchvision, and a network connection at first use"
        ) from error
    # Everything up to torchvision's own pooling is the feature sub-network.
    parts = OrderedDict(item for item in model.named_children() if item[0] not in ("avgpool", "fc"))
    return Network(nn.Sequential(parts), nn.Linear(model.fc.in_features, n_classes))


def refuse_other_heads(model: nn.Module, arch: str) -> None:
    """Raise UserError, naming the reason, unless the head is global average pooling and one FC layer."""
    if isinstance(model, torchvision.models.ResNet):
        return
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        reason = "it pools by attention, so it has no feature map under its classifier"
    elif len(linear) != 1:
        found = f"{len(linear)} FC layers ({', '.join(linear[:3])}…)" if linear else "no FC layer"
        reason = f"it has {found}"
    else:
        reason = f"layers stand between its pooling and its FC layer {linear[0]!r}, or its layout is unknown"
    raise UserError(
        f"--arch {arch}: refused, since class activation maps need global average pooling followed by "
        f"one FC layer, and {reason}; expected one of {', '.join(ARCHITECTURES)}"
    )
