"""How processes find each other, and tell each other something, through `torchrun`'s key-value store."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple

from extract.torchrun.environment import n_processes, rank
from store.errors import UserError

MEETING = timedelta(minutes=5)  # the longest wait for processes that start
PATIENCE = timedelta(days=1)  # for those at work, each at its own pace: torchrun watches them
_MEETINGS, _EXCHANGES = count(), count()  # the same in every process


class Meeting(NamedTuple):
    """Where processes met: a `torch.distributed.Store`, this one's number, and how many there are."""

    store: Any
    rank: int
    world: int


def meet(command: str) -> Meeting:
    """Find the other processes.

    Args:
        command: that they run, for messages.

    Raises:
        UserError: they cannot find each other.
    """
    world, number = n_processes(), rank()
    from torch.distributed import PrefixStore

    with finding(command):
        return Meeting(PrefixStore(f"{command} {next(_MEETINGS)}", _store(number, world)), number, world)


@contextmanager
def finding(command: str) -> Iterator[None]:
    """Errors of torch while processes look for each other, as one line; argument as of `meet`."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{command}: its processes cannot find each other ({reason}); start them again"
        ) from error


def exchange(command: str, meeting: Meeting, own: bytes) -> list[bytes]:
    """What every process says, by number; all must say something, and as often as the others.

    Args:
        command: that they run, for messages.
        meeting: of `meet`.
        own: what this process says.

    Raises:
        UserError: another process is gone.
    """
    store, me, world = meeting
    place = f"{command}/{next(_EXCHANGES)}"
    said = [f"{place}/said/{number}" for number in range(world)]
    heard = [f"{place}/heard/{number}" for number in range(world)]
    try:
        store.set(said[me], own)
        store.wait(said, PATIENCE)
        of_all = [bytes(store.get(key)) for key in said]
        store.set(heard[me], b"yes")
        if me == 0:  # it may host the store
            store.wait(heard, PATIENCE)
    except RuntimeError as error:
        raise UserError(f"{command}: another process stopped; its message says why") from error
    return of_all


@lru_cache(maxsize=1)
def _store(number: int, world: int) -> Any:
    """The store of all processes. Once: if the first hosts it, another one could find the old one closing."""
    from torch.distributed import rendezvous

    return next(rendezvous("env://", number, world, timeout=MEETING))[0]
