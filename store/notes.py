"""Notes: one line that the user should know but need not act on.

A note goes to the standard logger `tailcache`, so that any package can give one, and a program that imports
us can redirect it. The command line prints notes on stderr, each once.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

NOTES = logging.getLogger("tailcache")


def note(message: str) -> None:
    """Tell the user something in one line, without a full stop."""
    NOTES.warning("%s", " ".join(message.split()))


@contextmanager
def notes_kept_back(kept_back: bool) -> Iterator[None]:
    """Give no notes, as in all of several processes but the first.

    Args:
        kept_back: whether to; False changes nothing.
    """
    level = NOTES.level
    try:
        if kept_back:
            NOTES.setLevel(logging.ERROR)
        yield
    finally:
        NOTES.setLevel(level)
