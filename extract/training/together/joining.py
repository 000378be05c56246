"""How the processes of a training find each other: by what `torchrun` tells them in the environment."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count

import torch
import torch.distributed as dist

from extract.device import resolve_device
from extract.training.together.place import n_processes
from extract.training.together.ranks import ONE_PROCESS, Ranks
from store.errors import UserError
from store.notes import NOTES

MEETING = timedelta(minutes=5)  # the longest wait for processes that start
LONGEST = timedelta(hours=12)  # the longest that one works while the others wait, as for an evaluation
_TRAININGS = count()  # one process may train several networks, one after another, with the same others


def own_device(asked: str) -> torch.device:
    """The device of this process: one GPU for each process of a machine.

    Args:
        asked: `--device`.

    Raises:
        UserError: no such device, more processes than GPUs, or one GPU named for several processes.
    """
    device = resolve_device(asked)
    n_here, number = (int(os.environ.get(name, 0)) for name in ("LOCAL_WORLD_SIZE", "LOCAL_RANK"))
    if device.type != "cuda" or n_processes() == 1 or n_here <= 1:
        return device
    if asked not in ("auto", "cuda"):
        raise UserError(
            f"--device {asked}: is one GPU, but torchrun started {n_here} processes here that need one each; "
            "use --device cuda, or cpu"
        )
    if n_here > torch.cuda.device_count():
        raise UserError(
            f"train: torchrun started {n_here} processes here, of {torch.cuda.device_count()} GPUs; "
            "start one for each (--nproc-per-node), or use --device cpu"
        )
    return torch.device("cuda", number)


@contextmanager
def joined(asked: str) -> Iterator[Ranks]:
    """Join the other processes, if `torchrun` started several; only the first gives notes.

    Args:
        asked: `--device`: NCCL connects GPUs, gloo CPUs.

    Raises:
        UserError: they cannot find each other.
    """
    if n_processes() == 1:
        yield ONE_PROCESS
        return
    backend = "nccl" if own_device(asked).type == "cuda" else "gloo"
    try:
        found, rank, world = next(dist.rendezvous("env://", timeout=MEETING))
        store = dist.PrefixStore(f"phase1 {next(_TRAININGS)}", found)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=LONGEST)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"train: its processes cannot find each other ({reason}); start them again"
        ) from error
    level = NOTES.level
    try:
        if rank > 0:
            NOTES.setLevel(logging.ERROR)
        yield Ranks(rank, world, store)
    finally:
        NOTES.setLevel(level)
        dist.destroy_process_group()
