"""Trainings in several processes: forked, because each import of torch takes seconds."""

import os
import signal
import socket
import sys
from collections.abc import Callable

import torch
from faults import ended, forked

LONGEST = 60  # seconds, after which a process that waits for others is killed
NETS = """
from torch import nn

def plain():
    layers = [nn.Conv2d(3, 6, 3, 2, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 9))
"""


def in_processes(world: int, action: Callable[[int], None]) -> list[int]:
    """Run `action` with a rank in each of several processes, as `torchrun` starts them; their exit codes.

    What a process writes to stderr is in the file `stderr-RANK`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world)}
    place |= {"LOCAL_WORLD_SIZE": str(world)}

    def begin(rank: int) -> None:
        os.environ |= place | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        sys.stderr = open(f"stderr-{rank}", "w", buffering=1)  # noqa: SIM115, until the process ends
        torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LONGEST)
        action(rank)

    children = [forked(lambda rank=rank: begin(rank)) for rank in range(world)]
    return [ended(*child) for child in children]
