"""Errors that a user can cause, and therefore mend.

The command line prints any `UserError` as one line on stderr and exits with code 2. Its message says
what is wrong, where, what was found, what was expected, and what to do next.
"""


class UserError(Exception):
    """Something the user gave cannot be used as it is."""


class StoreError(UserError):
    """A feature store is missing, incomplete, foreign, damaged, or in the way."""
