"""Arguments of networks that others wrote: `--arch-option name=value`."""

import ast
from typing import Any

from store.errors import UserError


def arguments(config: Any) -> dict[str, Any]:
    """The arguments in a NetworkConfig: Python's numbers, tuples, True and None as such, others as texts.

    Raises:
        UserError: one is not name=value, or is named twice.
    """
    found: dict[str, Any] = {}
    for text in config.arch_option:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            raise UserError(f"--arch-option {text}: expected name=value, as in drop_path_rate=0.1")
        if name in found:
            raise UserError(f"--arch-option {text}: {name} is given twice")
        try:
            found[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            found[name] = value
    return found
