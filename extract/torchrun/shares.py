"""Images of an evaluation, shared out among the processes that `torchrun` started."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from extract.torchrun.environment import n_processes
from extract.torchrun.meeting import Meeting, exchange, meet
from store.errors import UserError
from store.notes import notes_kept_back

COMMAND = "evaluate"


@dataclass(frozen=True)
class Shares:
    """This process's share.

    Attributes:
        meeting: with the other processes; None for one that is alone.
    """

    meeting: Meeting | None = None

    def own(self, n: int, batch_size: int) -> np.ndarray:
        """Positions of this process's images among n: whole batches in a row, as many as the others have."""
        if self.meeting is None:
            return np.arange(n)
        starts = np.arange(0, n, batch_size)
        of_rank = np.array_split(starts, self.meeting.world)[self.meeting.rank]
        return np.arange(of_rank[0], min(n, of_rank[-1] + batch_size)) if len(of_rank) else np.arange(0)

    def whole(self, own: np.ndarray) -> np.ndarray:
        """Values of all images, in order, of each process's (N,) int64 values of its own.

        Raises:
            UserError: another process is gone.
        """
        if self.meeting is None:
            return own
        of_all = exchange(COMMAND, self.meeting, np.ascontiguousarray(own, np.int64).tobytes())
        return np.concatenate([np.frombuffer(values, np.int64) for values in of_all])


@contextmanager
def shared_out(options: dict[str, Any]) -> Iterator[Shares]:
    """Meet the other processes, if there are any; only the first gives notes.

    Args:
        options: that must be the same in all of them, by name.

    Raises:
        UserError: they cannot find each other, or have different options.
    """
    if n_processes() == 1:
        yield Shares()
        return
    meeting = meet(COMMAND)
    said = exchange(COMMAND, meeting, json.dumps(options).encode())
    first, *others = (json.loads(text) for text in said)
    for number, theirs in enumerate(others, 1):
        for name in (name for name in first if theirs.get(name) != first[name]):
            raise UserError(
                f"{COMMAND}: process {number} has {theirs.get(name)} for --{name.replace('_', '-')}, but "
                f"process 0 has {first[name]}; start all with the same options"
            )
    with notes_kept_back(meeting.rank > 0):
        yield Shares(meeting)
