"""What `torchrun` tells a process in its environment; read without torch, which takes seconds to import."""

import os

from store.errors import UserError


def n_processes() -> int:
    """How many processes were started together; 1 without `torchrun`.

    Raises:
        UserError: WORLD_SIZE is not a whole number of 1 or more.
    """
    return _number("WORLD_SIZE", 1, 1)


def rank() -> int:
    """Number of this process, from 0; 0 without `torchrun`.

    Raises:
        UserError: WORLD_SIZE or RANK is not what `torchrun` sets.
    """
    if (world := n_processes()) == 1:
        return 0
    found = _number("RANK", None, 0)
    if found >= world:
        raise UserError(f"RANK is {found}, expected a number below WORLD_SIZE {world}, as torchrun sets it")
    return found


def is_first_process() -> bool:
    """Whether this process is alone or the one that prints; errors as of `rank`."""
    return rank() == 0


def local_rank() -> int | None:
    """Number of this process among those of its machine; None without `torchrun`.

    Raises:
        UserError: LOCAL_RANK is not a whole number.
    """
    return None if "LOCAL_RANK" not in os.environ else _number("LOCAL_RANK", None, 0)


def n_processes_here() -> int:
    """How many processes were started on this machine; 1 without `torchrun`.

    Raises:
        UserError: LOCAL_WORLD_SIZE is not a whole number of 1 or more.
    """
    return _number("LOCAL_WORLD_SIZE", 1, 1)


def _number(name: str, default: int | None, least: int) -> int:
    text = os.environ.get(name)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdecimal()) or int(text) < least:
        found = "not set" if text is None else repr(text)
        raise UserError(
            f"{name} is {found}, expected a whole number of {least} or more, as torchrun sets it; to run a "
            "single process, unset WORLD_SIZE, RANK, LOCAL_RANK and LOCAL_WORLD_SIZE"
        )
    return int(text)
