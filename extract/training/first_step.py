"""A step of training before anything is written."""

import torch

from extract.device import Compute
from extract.networks.parts import Network
from extract.training.layer_draws import layer_draws
from store.errors import UserError


def check_trains(network: Network, arch: str, image_size: int, compute: Compute) -> None:
    """Raise UserError for a network that cannot take a step on two random images.

    Args:
        network: of no use afterwards: its statistics and gradients change.
        arch: its name, for the message.
        image_size: side of its images in pixels.
        compute: where and how it is to be trained; some layers train on a GPU alone.
    """
    images = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with layer_draws(0, 0, 0, compute.device):
        try:
            network.train().to(compute.device, memory_format=compute.memory_format)
            with compute.autocast():
                logits = network(images.to(compute.device, memory_format=compute.memory_format))
            logits.sum().backward()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # code of any make can fail in any way
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise UserError(
                f"--arch {arch}: fails in training ({reason}), not in evaluation; what its forward pass does "
                "where self.training is true must lead to its FC layer too"
            ) from error
