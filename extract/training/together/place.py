"""What `torchrun` tells a process in its environment; read without torch, which takes seconds to import."""

import os


def n_processes() -> int:
    """How many processes were started together; 1 without `torchrun`."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_first_process() -> bool:
    """Whether this process is alone or the one that prints."""
    return n_processes() == 1 or int(os.environ.get("RANK", 0)) == 0
