"""A step of training before anything is written."""

import torch

from extract.config import TrainConfig
from extract.device import Compute
from extract.networks.parts import Network
from extract.training.layer_draws import layer_draws
from extract.training.together.ranks import Ranks
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


@torch.inference_mode()
def check_no_lone_image(
    network: Network, config: TrainConfig, n_images: int, compute: Compute, ranks: Ranks
) -> None:
    """Raise UserError for a batch of one image with 1×1 maps: batch normalisation needs variance.

    Args:
        network: on the device; left in evaluation mode.
        config: resolved.
        n_images: in the training split.
        compute: where the network is.
        ranks: processes that share each batch.
    """
    last = n_images % config.batch_size or config.batch_size
    if min(n_images, config.batch_size, last) // ranks.world > 1:
        return
    side = config.image_size
    maps = network.eval().features(torch.zeros(1, 3, side, side, device=compute.device))
    if maps.shape[2:] == (1, 1):
        raise UserError(
            f"--batch-size {config.batch_size}: leaves one of {n_images} training images alone in a batch, "
            f"and {config.network.arch} shrinks images of {side} pixels to 1×1, too little for batch "
            "normalisation; choose another --batch-size or a larger --image-size"
        )
