"""The device of a process among those that `torchrun` started."""

import torch

from extract.device import resolve_device
from extract.torchrun.environment import local_rank


def device_of_rank(asked: str) -> torch.device:
    """The device of this process: under `torchrun` a GPU each in turn, unless one is named by its number.

    Args:
        asked: `--device`.

    Raises:
        UserError: there is no such device, or LOCAL_RANK is not what `torchrun` sets.
    """
    device, number = resolve_device(asked), local_rank()
    if asked in ("auto", "cuda") and device.type == "cuda" and number is not None:
        return torch.device("cuda", number % torch.cuda.device_count())
    return device
