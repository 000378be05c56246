"""In which order a training keeps the channels of images, maps and weights in memory."""

import torch
from torch import nn

from extract.device import Compute
from extract.networks.parts import Network

WIDE = 16  # channels, of which layers on a CPU have a multiple


def layout_of(network: Network, compute: Compute) -> torch.memory_format:
    """Channels last on a GPU, and in bf16 on a CPU, where a step of ResNet-32 takes two thirds of the time.

    Not on a CPU if a strided 1×1 convolution has other than a multiple of 16 channels: with 8 or 12, torch
    2.15 writes past its buffers at some batch sizes, and the process aborts ("double free").

    Args:
        network: to be trained.
        compute: device and precision.
    """
    if compute.device.type == "cuda" or compute.precision != "bf16":
        return compute.memory_format
    narrow = any(_is_narrow(layer) for layer in network.modules() if isinstance(layer, nn.Conv2d))
    return torch.contiguous_format if narrow else torch.channels_last


def _is_narrow(layer: nn.Conv2d) -> bool:
    is_strided = max(layer.stride) > 1 and max(layer.kernel_size) == 1
    return is_strided and bool(layer.in_channels % WIDE or layer.out_channels % WIDE)
