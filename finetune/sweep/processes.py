"""The processes of a sweep, as `torchrun` started them: each waits for the others for as long as they live.

Every process has a thread that says in the store of `torchrun`, again and again, that it lives and how far it
is, and looks at what the others say. A machine that vanishes closes no connection: silence alone tells of it.
What is slow is waited for, however long it takes.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from store.errors import UserError

SILENCE = 300.0  # seconds after which a process that says nothing counts as gone
LOOKS = 600  # in that time; silence is counted in them, so that a process that was stopped accuses no other
LAST_LOOK = 5.0  # seconds that one that ends stays for the others to see it, for it may hold the store
LIVES, ENDED, FAILED = "lives", "ended", "failed"


class Processes:
    """This process among the others.

    Attributes:
        rank: its number.
        world: how many there are.
    """

    def __init__(self, rank: int = 0, world: int = 1, store: Any = None, silence: float = SILENCE):
        """Begin to talk.

        Args:
            rank, world: see above.
            store: a `torch.distributed.Store`; none for a lone process.
            silence: seconds after which another counts as gone.
        """
        self.rank, self.world = rank, world
        self._store, self._silence = store, silence
        self._n_met, self._state = 0, LIVES
        self._heard = dict.fromkeys(set(range(world)) - {rank}, "0 0 lives")  # number, meetings, state
        self._unchanged = dict.fromkeys(self._heard, 0)  # looks since it said something else
        self._looks, self._is_broken = 0, False
        self._news, self._hurry = threading.Condition(), threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)  # it may hang with the store
        if world > 1:
            self._thread.start()

    def meet(self) -> None:
        """Return once every process has come to this meeting.

        Raises:
            UserError: one of them failed, or is gone.
        """
        self._n_met += 1
        self._hurry.set()
        looks, n_waits = self._looks, 0
        with self._news:
            while missing := [
                rank for rank, said in self._heard.items() if int(said.split()[1]) < self._n_met
            ]:
                self._check_alive(missing, n_waits)
                self._news.wait(self._silence / LOOKS)
                looks, n_waits = self._looks, n_waits + 1 if looks == self._looks else 0

    def leave(self, failed: bool) -> None:
        """Tell the others that this process ends, and whether for a failure."""
        self._state = FAILED if failed else ENDED
        self._hurry.set()
        if self.world > 1:
            self._thread.join(min(LAST_LOOK, self._silence))

    def _check_alive(self, missing: list[int], n_waits: int) -> None:
        if self._is_broken or any(self._heard[rank].endswith(FAILED) for rank in missing):
            raise UserError("sweep: another of its processes stopped; its message says why")
        silent = [rank for rank in missing if self._unchanged[rank] > LOOKS]
        silent = [0] if n_waits > LOOKS else silent  # the store does not answer, which is where the first is
        if silent:
            raise UserError(
                f"sweep: the process of rank {silent[0]} has said nothing for {self._silence:g} s; its "
                "machine may be gone, or it is stopped; end the rest of the sweep, and go on with --resume"
            )

    def _talk(self) -> None:
        try:
            while True:
                state = self._state
                self._store.set(f"sweep/{self.rank}", f"{self._looks} {self._n_met} {state}")
                self._look()
                others_left = all(not said.endswith(LIVES) for said in self._heard.values())
                if state != LIVES and (self.rank != 0 or others_left):
                    return
                self._hurry.wait(self._silence / LOOKS)
                self._hurry.clear()
        except RuntimeError:  # of torch, where the store is gone
            self._is_broken = True

    def _look(self) -> None:
        keys = {rank: f"sweep/{rank}" for rank in self._heard}
        there = [rank for rank, key in keys.items() if self._store.check([key])]
        said = self._store.multi_get([keys[rank] for rank in there]) if there else []
        with self._news:
            before = dict(self._heard)
            self._heard.update(zip(there, (value.decode() for value in said), strict=True))
            for rank, value in self._heard.items():
                self._unchanged[rank] = self._unchanged[rank] + 1 if value == before[rank] else 0
            self._looks += 1
            self._news.notify_all()


@contextmanager
def processes(silence: float = SILENCE) -> Iterator[Processes]:
    """All processes of a sweep, each of which is here; a failure in the block is told to the others.

    Args:
        silence: seconds after which a process that says nothing counts as gone.

    Raises:
        UserError: they do not find each other.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    found = Processes() if world == 1 else Processes(*_rendezvous(), silence)
    failed = True
    try:
        found.meet()
        yield found
        failed = False
    finally:
        found.leave(failed)


def _rendezvous() -> tuple[int, int, Any]:
    """Rank, number of processes, and the store that they share."""
    from torch.distributed import rendezvous

    try:
        store, rank, world = next(rendezvous("env://", timeout=timedelta(seconds=SILENCE)))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"sweep: its processes do not find each other ({reason}); start it anew") from error
    return rank, world, store
