"""Errors that a user can cause, and therefore mend.

The command line prints any `UserError` as one line on stderr and exits with code 2. Its message says
what is wrong, where, what was found, what was expected, and what to do next.
"""

import os
from typing import Any


class UserError(Exception):
    """Something the user gave cannot be used as it is."""


class Interrupted(KeyboardInterrupt):
    """The user stopped something that the same command with `--resume` goes on with."""


def refuse_undecodable(*names: str) -> None:
    """Raise UserError for a name that is not UTF-8, as all that this program writes is."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{os.fsencode(name)!r}: this name is not UTF-8; rename it") from error


MOST = 2**32  # of any number option: beyond it lie overflows, not settings


def check_at_least(config: Any, **least: float) -> None:
    """Raise UserError for a field of `config` below its least, NaN, or of 2^32 and more; None passes."""
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and not bound <= value < MOST:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} {value}: must be {bound} or more, and below 2^32")


class CheckpointError(UserError):
    """A file is no checkpoint of ours, or not the one that is needed."""


class StoreError(UserError):
    """A feature store is missing, incomplete, foreign, damaged, or in the way."""
