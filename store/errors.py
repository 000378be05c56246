"""Errors that a user can cause, and therefore fix.

The command line prints any `UserError` as one line on stderr and exits with code 2. Its message says
what is wrong, where, what was found, what was expected, and what to do next.
"""

import os


class UserError(Exception):
    """Something the user gave cannot be used."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, where the same command with `--resume` can continue."""


def check_utf8(*names: str) -> None:
    """Raise UserError for a name that is not UTF-8, the only encoding that this program writes."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{os.fsencode(name)!r}: this name is not UTF-8; rename it") from error


class CheckpointError(UserError):
    """A file is not a checkpoint of this program, or not the one needed."""


class StoreError(UserError):
    """A feature store is missing, incomplete, foreign, damaged, or in the way."""


class InUseError(StoreError):
    """Another process is writing the store, or this part of it."""


class UnreadableError(StoreError):
    """A file of a store is there, but the system does not let it be read."""
