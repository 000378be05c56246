"""Residual networks for small images: a 3×3 stem, and stages of basic blocks."""

from dataclasses import dataclass

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from extract.config import NetworkConfig
from extract.networks.names import check_suited
from extract.networks.parts import Family, Network


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
        """(B, C + new channels, H / stride, W / stride)."""
        x = x[:, :, :: self.stride, :: self.stride]
        before = self.new_channels // 2
        return nn.functional.pad(x, (0, 0, 0, 0, before, self.new_channels - before))


def _build(config: NetworkConfig, n_classes: int) -> Network:
    architecture = CIFAR_ARCHITECTURES[config.arch]
    channels = config.width or architecture.width
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
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # which has no values to draw
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


FAMILY = Family(CIFAR_ARCHITECTURES.__contains__, check_suited, _build, image_size=32)
