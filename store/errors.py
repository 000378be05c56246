"""Errors that a user can cause, and therefore mend.

The command line prints any `UserError` as one line on stderr and exits with code 2. Its message says
what is wrong, where, what was found, what was expected, and what to do next.
"""

import math
from typing import Any


class UserError(Exception):
    """Something the user gave cannot be used as it is."""


def check_at_least(config: Any, **least: float) -> None:
    """Raise UserError for a field of `config` that is below its least value, NaN or infinite; None passes."""
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and not bound <= value < math.inf:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be {bound} or more, and finite")


class StoreError(UserError):
    """A feature store is missing, incomplete, foreign, damaged, or in the way."""
