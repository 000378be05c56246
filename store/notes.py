"""What a user should know and need not act on: one line each, wherever it is noticed.

A note goes to the standard logger `tailcache`, so that any room may give one, and a program that imports us
may do with it what it likes. The command line prints notes on stderr, each once.
"""

import logging

NOTES = logging.getLogger("tailcache")


def note(message: str) -> None:
    """Tell the user something in one line, without a full stop."""
    NOTES.warning("%s", " ".join(message.split()))
