"""The processes of a sweep or contest under `torchrun`: each waits for the others as long as they are alive.

A thread in every process keeps writing a heartbeat and its progress to torchrun's key-value store, and reads
the others'. A machine that vanishes closes no connection, so only silence reveals it. Slow processes are
waited for, however long they take.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from extract.torchrun.environment import n_processes
from extract.torchrun.meeting import meet
from store.errors import UserError

SILENCE = 300.0  # seconds without a heartbeat after which a process counts as gone
POLLS = 600  # in that time; silence is counted in our own polls, not by the clock: we may have been stopped
LINGER = 5.0  # most seconds that a process which ends stays for the others to notice; it may host the store
LIVES, ENDED, FAILED = "lives", "ended", "failed"


class Processes:
    """This process among the others.

    Attributes:
        rank: number of this process.
        world: number of processes.
    """

    def __init__(
        self,
        rank: int = 0,
        world: int = 1,
        store: Any = None,
        silence: float = SILENCE,
        command: str = "sweep",
    ):
        """Start the heartbeat.

        Args:
            rank, world: see above.
            store: a `torch.distributed.Store`; None for a single process.
            silence: seconds without a heartbeat after which another process counts as gone.
            command: that they run, for messages.
        """
        self._command = command
        self.rank, self.world = rank, world
        self._store, self._silence = store, silence
        self._n_met, self._state = 0, LIVES
        self._heard = dict.fromkeys(set(range(world)) - {rank}, "0 0 lives")  # polls, meetings, state
        self._unchanged = dict.fromkeys(self._heard, 0)  # our polls since the last change
        self._polls, self._is_broken = 0, False
        self._news, self._hurry = threading.Condition(), threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)  # daemon: the store may hang it
        if world > 1:
            self._thread.start()

    def meet(self) -> None:
        """A barrier: return once every process has reached it.

        Raises:
            UserError: a process failed or is gone.
        """
        self._n_met += 1
        self._hurry.set()
        polls, n_waits = self._polls, 0
        with self._news:
            while missing := [
                rank for rank, said in self._heard.items() if int(said.split()[1]) < self._n_met
            ]:
                self._check_alive(missing, n_waits)
                self._news.wait(self._silence / POLLS)
                polls, n_waits = self._polls, n_waits + 1 if polls == self._polls else 0

    def leave(self, failed: bool) -> None:
        """Tell the others that this process ends, and whether it failed."""
        self._state = FAILED if failed else ENDED
        self._hurry.set()
        if self.world > 1:
            self._thread.join(min(LINGER, self._silence))

    def _check_alive(self, missing: list[int], n_waits: int) -> None:
        if self._is_broken or any(self._heard[rank].endswith(FAILED) for rank in missing):
            raise UserError(f"{self._command}: another process stopped; its message says why")
        silent = [rank for rank in missing if self._unchanged[rank] > POLLS]
        silent = [0] if n_waits > POLLS else silent  # the store does not answer: rank 0 hosts it
        if silent:
            raise UserError(
                f"{self._command}: the process of rank {silent[0]} has not been heard from for "
                f"{self._silence:g} s; it may be stopped, or its machine gone; end the other processes and "
                "continue with --resume"
            )

    def _talk(self) -> None:
        try:
            while True:
                state = self._state
                self._store.set(f"sweep/{self.rank}", f"{self._polls} {self._n_met} {state}")
                self._poll()
                others_left = all(not said.endswith(LIVES) for said in self._heard.values())
                if state != LIVES and (self.rank != 0 or others_left):
                    return
                self._hurry.wait(self._silence / POLLS)
                self._hurry.clear()
        except RuntimeError:  # torch's error when the store is gone
            self._is_broken = True

    def _poll(self) -> None:
        keys = {rank: f"sweep/{rank}" for rank in self._heard}
        there = [rank for rank, key in keys.items() if self._store.check([key])]
        said = self._store.multi_get([keys[rank] for rank in there]) if there else []
        with self._news:
            before = dict(self._heard)
            self._heard.update(zip(there, (value.decode() for value in said), strict=True))
            for rank, value in self._heard.items():
                self._unchanged[rank] = self._unchanged[rank] + 1 if value == before[rank] else 0
            self._polls += 1
            self._news.notify_all()


@contextmanager
def processes(silence: float = SILENCE, command: str = "sweep") -> Iterator[Processes]:
    """Join the processes of a sweep or contest; the others are told if the block fails.

    Args:
        silence: seconds without a heartbeat after which a process counts as gone.
        command: that they run, for messages.

    Raises:
        UserError: the processes cannot find each other.
    """
    found = Processes(command=command)
    if n_processes() > 1:
        store, rank, world = meet(command)
        found = Processes(rank, world, store, silence, command)
    failed = True
    try:
        found.meet()
        yield found
        failed = False
    finally:
        found.leave(failed)
