"""Residual networks for small images: a 3×3 stem, and stages of basic blocks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from extract.networks.family import Family, Preparation

if TYPE_CHECKING:
    from torchvision.models.resnet import BasicBlock

    from extract.networks.parts import Network


@dataclass(frozen=True)
class CifarArchitecture:
    """Residual stages of basic blocks behind a 3×3 stem; the second and later stages halve H and W."""

    blocks: tuple[int, ...]
    width: int
    projection: bool  # shortcuts that change shape: 1×1 convolution, or zero-padded channels


# ResNet-8 to 56: He et al. 2016, sec. 4.2 (option A shortcuts). ResNet-18/34: their ImageNet stages.
CIFAR_ARCHITECTURES = {
    "resnet8": CifarArchitecture((1, 1, 1), 16, projection=False),
    "resnet20": CifarArchitecture((3, 3, 3), 16, projection=False),
    "resnet32": CifarArchitecture((5, 5, 5), 16, projection=False),
    "resnet44": CifarArchitecture((7, 7, 7), 16, projection=False),
    "resnet56": CifarArchitecture((9, 9, 9), 16, projection=False),
    "resnet18-cifar": CifarArchitecture((2, 2, 2, 2), 64, projection=True),
    "resnet34-cifar": CifarArchitecture((3, 4, 6, 3), 64, projection=True),
}


def _build(config: Any, n_classes: int, image_size: int) -> "Network":
    from torch import nn

    from extract.networks.parts import Network

    architecture = CIFAR_ARCHITECTURES[config.arch]
    channels = config.width or architecture.width
    layers = [
        nn.Conv2d(3, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    ]
    stages = {}
    for stage, n_blocks in enumerate(architecture.blocks):
        for block in range(n_blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(_block(channels, channels * stride, stride, architecture.projection))
            channels *= stride  # halving H and W doubles the channels
        stages[f"layer{stage + 1}"] = str(len(layers) - 1)  # its last block, among numbered modules
    network = Network(nn.Sequential(*layers), nn.Linear(channels, n_classes))
    network.stages = stages
    network.is_known = True
    for module in network.features.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # which has no values to draw
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def _block(before: int, after: int, stride: int, projection: bool) -> "BasicBlock":
    from torch import nn
    from torchvision.models.resnet import BasicBlock

    from extract.networks.layers import ZeroPadShortcut

    shortcut = None
    if stride > 1 and projection:
        convolution = nn.Conv2d(before, after, 1, stride, bias=False)
        shortcut = nn.Sequential(convolution, nn.BatchNorm2d(after))
    elif stride > 1:
        shortcut = ZeroPadShortcut(after - before, stride)
    return BasicBlock(before, after, stride, shortcut)


FAMILY = Family(tuple(CIFAR_ARCHITECTURES), _build, lambda config: Preparation(32), options=("width",))
