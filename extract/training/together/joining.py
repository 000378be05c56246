"""How the processes of a training find each other: by what `torchrun` tells them in the environment."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from extract.device import resolve_device
from extract.torchrun.device import device_of_rank
from extract.torchrun.environment import n_processes, n_processes_here
from extract.torchrun.meeting import finding, meet
from extract.training.together.ranks import ONE_PROCESS, Ranks
from store.errors import UserError
from store.notes import notes_kept_back

LONGEST = timedelta(hours=12)  # the longest that one works while the others wait, as for an evaluation


def own_device(asked: str) -> torch.device:
    """The device of this process: one GPU for each process of a machine.

    Args:
        asked: `--device`.

    Raises:
        UserError: no such device, more processes than GPUs, or one GPU named for several processes.
    """
    n_here = n_processes_here()
    if resolve_device(asked).type != "cuda" or n_processes() == 1 or n_here == 1:
        return resolve_device(asked)
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
    return device_of_rank(asked)


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
    store, rank, world = meet("train")
    with finding("train"):
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=LONGEST)
    try:
        with notes_kept_back(rank > 0):
            yield Ranks(rank, world, store)
    finally:
        dist.destroy_process_group()
