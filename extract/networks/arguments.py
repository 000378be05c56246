"""Arguments of networks that others wrote: `--arch-option name=value`."""

import ast
from collections.abc import Mapping
from numbers import Number
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
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return text


def as_texts(given: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts from which `arguments` makes these arguments.

    Raises:
        UserError: a value is more than numbers, strings, tuples, lists, dictionaries, True, False and None.
    """
    return tuple(f"{name}={_text(str(name), value)}" for name, value in given.items())


def _text(name: str, value: Any) -> str:
    value = value.item() if isinstance(value, Number) and hasattr(value, "item") else value  # of numpy
    value = str.__str__(value) if isinstance(value, str) else value
    try:
        text = value if isinstance(value, str) and _value(value) == value else repr(value)
        same = type(_value(text)) is type(value) and bool(_value(text) == value)
    except Exception:  # a number of 5,000 digits cannot be printed, arrays within a list have no truth value
        same = False
    if not same:
        raise UserError(
            f"--arch-option {name}: {type(value).__name__} cannot be kept in a checkpoint; expected a "
            "number, a string, None, True, False, or a tuple, list or dictionary of these"
        )
    return text
