"""Where the seconds of an epoch of training go."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")
WAITING, EVALUATING, WRITING = "waiting", "evaluating", "writing"


@dataclass
class Profile:
    """Seconds of this process by what it did; what is left of an epoch are steps.

    A GPU computes beside them: it stands still only while `waiting` and `writing` outlast what it was given.

    Attributes:
        spent: seconds by kind.
    """

    spent: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys((WAITING, EVALUATING, WRITING), 0.0)
    )

    @contextmanager
    def during(self, kind: str) -> Iterator[None]:
        """Count the block as one kind."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spent[kind] += time.perf_counter() - began

    def awaited(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items; the time until each comes counts as waiting."""
        coming = iter(items)
        while True:
            with self.during(WAITING):
                try:
                    item = next(coming)
                except StopIteration:
                    return
            yield item

    def columns(self) -> dict[str, float]:
        """For metrics.csv."""
        return {f"seconds_{kind}": seconds for kind, seconds in self.spent.items()}

    def told(self, seconds: float) -> str:
        """An epoch of so many seconds in a few words."""
        steps = seconds - sum(self.spent.values())
        parts = {"in steps": steps, "waiting for images": self.spent[WAITING]}
        parts |= {kind: self.spent[kind] for kind in (EVALUATING, WRITING)}
        return f"{seconds:.1f} s: " + ", ".join(f"{value:.1f} {name}" for name, value in parts.items())
