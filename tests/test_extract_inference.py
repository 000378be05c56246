"""A CPU takes a batch of large images in pieces: the same maps, in the same order."""

from unittest.mock import Mock

import pytest
import torch
from torch import nn

from extract.device import Compute
from extract.inference import PIXELS_AT_ONCE, features_in_pieces
from extract.networks.parts import Network


class Counting(nn.Module):
    """A convolution that keeps the shapes of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.shapes = nn.Conv2d(3, 4, 3, stride=8), []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(images.shape))
        return self.convolution(images)


@pytest.mark.parametrize(
    ("n", "side", "pieces"),
    [(37, 224, [16, 16, 5]), (16, 224, [16]), (128, 32, [128]), (3, 1000, [1, 1, 1]), (100, 96, [87, 13])],
)
def test_pieces_hold_as_many_pixels_as_may_be_and_give_the_same_maps(n, side, pieces):
    with torch.random.fork_rng(devices=[]):
        network = Network(Counting(), nn.Linear(4, 2)).eval()
    images = torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))
    compute = Compute(torch.device("cpu"), "fp32", 128, 0)
    with torch.inference_mode():
        found = features_in_pieces(network, images, compute)
        assert network.features.shapes == [(piece, 3, side, side) for piece in pieces]
        assert all(piece == 1 or piece * side**2 <= PIXELS_AT_ONCE for piece in pieces)
        torch.testing.assert_close(found, network.features.convolution(images))


def test_a_gpu_takes_a_batch_whole():
    network, images = Mock(), torch.empty(37, 3, 224, 224)
    features_in_pieces(network, images, Mock(device=torch.device("cuda"), memory_format=torch.channels_last))
    assert network.features.call_count == 1
    assert network.features.call_args.args[0].shape == images.shape
