"""Errors that a user can cause, and therefore mend.

The command line prints any `UserError` as one line on stderr and exits with code 2. Its message says
what is wrong, where, what was found, what was expected, and what to do next.
"""

import os


class UserError(Exception):
    """Something the user gave cannot be used as it is."""


class Interrupted(KeyboardInterrupt):
    """The user stopped something that the same command with `--resume` goes on with."""


def check_utf8(*names: str) -> None:
    """Raise UserError for a name that is not UTF-8, as all that this program writes is."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{os.fsencode(name)!r}: this name is not UTF-8; rename it") from error


class CheckpointError(UserError):
    """A file is no checkpoint of ours, or not the one that is needed."""


class StoreError(UserError):
    """A feature store is missing, incomplete, foreign, damaged, or in the way."""
