"""Sharpness-aware minimisation (Foret et al. 2021): the gradient where the loss is highest nearby."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

LEAST = 1e-12  # added to the norm, for a gradient of 0


class SameDraws:
    """Draws of torch's generators, which a second pass repeats: dropout leaves out the same."""

    def __init__(self, device: torch.device):
        """Remember where the generators of the host and of a GPU are."""
        self._device, self._host = device, torch.get_rng_state()
        self._of_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def repeat(self) -> None:
        """Go back to there."""
        torch.set_rng_state(self._host)
        if self._of_gpu is not None:
            torch.cuda.set_rng_state(self._of_gpu, self._device)


@contextmanager
def uphill(network: nn.Module, rho: float) -> Iterator[None]:
    """Weights are moved by `rho` along their gradients, and afterwards back, to the bit.

    Statistics of normalisation layers stay as they are meanwhile, so that they see a batch once.

    Args:
        network: with gradients of the batch.
        rho: distance, over all weights together.
    """
    weights = [weight for weight in network.parameters() if weight.grad is not None]
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        norms = torch.stack([torch.linalg.vector_norm(weight.grad) for weight in weights])
        scale = rho / (torch.linalg.vector_norm(norms) + LEAST)
        for weight in weights:
            weight += scale * weight.grad
    counting = [m for m in network.modules() if getattr(m, "track_running_stats", False)]
    for module in counting:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in counting:
            module.track_running_stats = True
        with torch.no_grad():
            for weight, own in zip(weights, before, strict=True):
                weight.copy_(own)
