"""A CPU takes a batch of large images in pieces: the same maps, in the same order."""

from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import nn

from extract.device import MOST_MMAP_THRESHOLD, Compute
from extract.inference import features_in_pieces, images_at_once
from extract.networks.parts import Network


class Counting(nn.Module):
    """A convolution that keeps the shapes of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.shapes = nn.Conv2d(3, 4, 3, stride=8), []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(images.shape))
        return self.convolution(images)


CPU = Compute(torch.device("cpu"), "fp32", 128, 0)


@pytest.mark.parametrize(("n", "pieces"), [(37, [16, 16, 5]), (16, [16]), (1, [1])])
def test_pieces_of_a_batch_give_its_maps_in_its_order(n, pieces):
    network = made_network()
    images = torch.randn(n, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = features_in_pieces(network, images, 16, CPU)
        assert network.features.shapes == [(piece, 3, 24, 24) for piece in pieces]
        torch.testing.assert_close(found, network.features.convolution(images))


@pytest.mark.parametrize("side", [64, 512])
def test_no_tensor_between_layers_is_larger_than_the_c_library_keeps(side):
    """The largest is that of the convolution: 4 channels of an eighth of the side, in float32."""
    network, images = made_network(), torch.zeros(3, 3, side, side)
    of_one = 4 * (side // 8) ** 2 * 4
    assert images_at_once(network, images, CPU) == MOST_MMAP_THRESHOLD // of_one
    assert network.features.shapes == [(1, 3, side, side)]
    assert not network.features.convolution._forward_hooks  # nothing stays behind


def test_one_image_is_the_least():
    network = made_network()
    with mock.patch("extract.inference.MOST_MMAP_THRESHOLD", 100):
        assert images_at_once(network, torch.zeros(3, 3, 64, 64), CPU) == 1


def test_a_gpu_takes_a_batch_whole():
    gpu = replace(CPU, device=torch.device("cuda"))
    assert images_at_once(mock.Mock(), torch.empty(37, 3, 8, 8), gpu) == 37


def made_network() -> Network:
    with torch.random.fork_rng(devices=[]):
        return Network(Counting(), nn.Linear(4, 2)).eval()
