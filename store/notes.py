"""Notes: one line that the user should know but need not act on.

A note goes to the standard logger `tailcache`, so that any package can give one, and a program that imports
us can redirect it. The command line prints notes on stderr, each once.
"""

import logging

NOTES = logging.getLogger("tailcache")


def note(message: str) -> None:
    """Tell the user something in one line, without a full stop."""
    NOTES.warning("%s", " ".join(message.split()))
