"""What layers draw in training: dropout, stochastic depth."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def layer_draws(seed: int, epoch: int, step: int, device: torch.device, rank: int = 0) -> Iterator[None]:
    """Layers draw from torch's global generators: here, the numbers of a step, whatever was drawn before.

    So a run that is resumed within an epoch ends in the same weights as an uninterrupted one. Afterwards the
    generators are as they were.

    Args:
        seed: of the run.
        epoch, step: finished ones.
        device: that the network is on.
        rank: of this process, which has other images than the others.
    """
    own = f" {rank}" if rank else ""
    digest = hashlib.sha256(f"layers {seed} {epoch} {step}{own}".encode()).digest()
    number = int.from_bytes(digest[:8], "big")
    on_gpu = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=on_gpu):
        torch.default_generator.manual_seed(number)  # torch.manual_seed also formats the call stack
        for gpu in on_gpu:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(number)
        yield
