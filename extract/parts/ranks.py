"""The ranks of torchrun: all wait for the first to begin, and the last one completes the store.

Between that they do not talk: a rank is a part, as of `--part`. If one fails, torchrun ends the others.
"""

from typing import Any

from extract.torchrun.meeting import PATIENCE, meet
from store.errors import UserError
from store.parts.part import Part

BEGUN = "extract/begun"


class Ranks:
    """torchrun's key-value store, as far as it is needed."""

    def __init__(self, part: Part, store: Any = None):
        """Meet the other ranks.

        Args:
            part: that this process writes.
            store: a `torch.distributed.Store`; None for torchrun's.

        Raises:
            UserError: the processes cannot find each other.
        """
        self.part, self.is_first = part, part.number == 1
        self._store = meet("extract").store if store is None else store

    def wait_for_first(self) -> None:
        """Wait until the first rank has begun; it returns at once for that one."""
        if not self.is_first:
            self._wait(BEGUN)
            self._store.set(_here(self.part.number), "yes")

    def tell_begun(self) -> None:
        """Let the others begin; it does nothing for them."""
        if self.is_first:
            self._store.set(BEGUN, "yes")

    def wait_for_others(self) -> None:
        """For the first rank, which may host the key-value store: wait until all have begun."""
        if self.is_first:
            for number in range(2, self.part.count + 1):
                self._wait(_here(number))

    def _wait(self, key: str) -> None:
        try:
            self._store.wait([key], PATIENCE)
        except RuntimeError as error:  # torch's, when the store is gone or nobody came
            raise UserError("extract: another process stopped; its message says why") from error


def _here(number: int) -> str:
    return f"extract/{number}"
