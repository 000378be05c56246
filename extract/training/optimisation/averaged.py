"""Exponentially averaged weights (EMA), which are evaluated and kept in place of the last ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from extract.networks.parts import Network


class AveragedWeights:
    """The average of a network's weights and statistics over its steps.

    After step t (from 1) the average moves towards the weights by 1 − d, d = min(decay, (1 + t) / (10 + t)):
    the initial weights are forgotten at first, as in TensorFlow's average. Integers are copied.
    """

    def __init__(self, network: Network, decay: float):
        self.decay, self.n_steps = decay, 0
        self.state = copied(network)

    @torch.no_grad()
    def follow(self, network: Network) -> None:
        """Take in the weights after a step."""
        self.n_steps += 1
        decay = min(self.decay, (1 + self.n_steps) / (10 + self.n_steps))
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                self.state[name].lerp_(tensor, 1 - decay)
            else:
                self.state[name].copy_(tensor)

    @contextmanager
    def used_by(self, network: Network) -> Iterator[None]:
        """A network has the averaged weights, and afterwards its own again, to the bit."""
        own = copied(network)
        network.load_state_dict(self.state)
        try:
            yield
        finally:
            network.load_state_dict(own)


def copied(network: Network) -> dict[str, torch.Tensor]:
    """A copy of a network's weights and statistics, on its device."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
