"""Options as Python keywords: names and types checked against the command line's configs."""

import math
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np

from extract.networks.arguments import as_texts
from finetune.commands.options import PLACES, option_fields
from store.errors import UserError
from store.options import flag

MOST_BITS = 4096  # bits of the largest integer to print; Python refuses to print 4,300 digits
LONGEST = 60  # characters of a value in a message
CHANNELS = ("mean", "std")  # options that are a number for each colour
VARIED = {"grid": ",", "range": ":"}  # options of a sweep that vary others, with the separator of values


def checked_options(config_class: type, function: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check options and convert them to what the command line would pass to `build`.

    Args:
        config_class: config that has the options, nested configs included.
        function: the function that was called, for messages.
        options: values by name; paths may be `Path`, with `~` for the home folder.

    Raises:
        UserError: there is no such option, or it cannot have this value.
    """
    kinds = _kinds(config_class)
    for name in options:
        if name not in kinds:
            near = get_close_matches(name, kinds, n=1)
            advice = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(kinds)}"
            raise UserError(f"{function}: no option {name}; {advice}")
    return {name: _value(name, kinds[name], value) for name, value in options.items()}


def varied_options(options: Mapping[str, Any]) -> dict[str, list[str]]:
    """`grid={"tau": [1, 2]}` of a sweep as on the command line: `tau=1,2`.

    Raises:
        UserError: it is not a mapping of options to values, or has a number that cannot be printed.
    """
    return {name: _varied(options[name], sign) for name, sign in VARIED.items() if name in options}


def _varied(asked: Any, sign: str) -> list[str]:
    if isinstance(asked, list | tuple) and all(isinstance(one, str) for one in asked):
        return list(asked)
    if not isinstance(asked, Mapping):
        raise UserError(f'sweep: {_shown(asked)}: expected values by option, such as {{"tau": [1, 2]}}')
    texts = []
    for name, values in asked.items():
        several = _several(values)
        for value in several:
            _check_printable(str(name), value)
        texts.append(f"{name}={sign.join(map(str, several))}")
    return texts


def _several(values: Any) -> Sequence[Any]:
    """Values of an option; a single value needs no list."""
    values = values.tolist() if isinstance(values, np.ndarray) else values
    return values if isinstance(values, list | tuple | range) else [values]


def _kinds(config_class: type) -> dict[str, tuple[Any, ...]]:
    """The types that each option can have."""
    found = {}
    for field, kind, option in option_fields(config_class):
        named = option.kind_with_names(kind)
        found[field.name] = get_args(named) if get_origin(named) in (Union, UnionType) else (named,)
    return found


def _value(name: str, kinds: tuple[Any, ...], value: Any) -> Any:
    """The value as the command line would pass it; numpy values and enums become Python's own types."""
    if name in PLACES and isinstance(value, str | os.PathLike):
        return str.__str__(os.path.expanduser(os.fsdecode(value)))
    if name in CHANNELS and not isinstance(value, str | None):
        return _channels(name, value)
    if name == "arch_option" and isinstance(value, Mapping):
        return as_texts(value)
    for kind in kinds:
        if get_origin(kind) is Literal:
            if isinstance(value, str) and value in get_args(kind):
                return str.__str__(value)
        elif get_origin(kind) is tuple:
            if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
                return tuple(map(str.__str__, value))
        elif kind in (int, float):
            number = Integral if kind is int else Real
            if isinstance(value, number) and not isinstance(value, bool):
                return _number(name, kind, value)
        elif kind is bool:
            if isinstance(value, bool | np.bool_):
                return bool(value)
        elif isinstance(value, kind):
            return str.__str__(value) if kind is str else value
    expected = " or ".join(filter(None, map(_in_words, kinds)))
    if name == "class_names":  # a list of names is what comes to mind
        expected = "the path of a file of names, a class in each line"
    raise UserError(f"{flag(name)} {_shown(value)}: expected {expected}")


def _channels(name: str, values: Any) -> str:
    """`mean=(0.5, 0.5, 0.5)` as on the command line."""
    several = _several(values)
    if len(several) != 3 or not all(isinstance(v, Real) and not isinstance(v, bool) for v in several):
        raise UserError(f"{flag(name)} {_shown(values)}: expected three numbers, as in (0.5, 0.5, 0.5)")
    for value in several:
        _check_printable(name, value)
    return ",".join(str(int(v) if isinstance(v, Integral) else _number(name, float, v)) for v in several)


def _number(name: str, kind: type, value: Any) -> int | float:
    """The number as a Python int or float; infinite if too large for a float, as on the command line."""
    if kind is int:
        _check_printable(name, value)
        return int(value)
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _check_printable(name: str, value: Any) -> None:
    if isinstance(value, Integral) and int(value).bit_length() > MOST_BITS:
        found = f"a whole number of {int(value).bit_length():,} bits"
        raise UserError(f"{flag(name)}: must be below 2^32, found {found}")


def _shown(value: Any) -> str:
    """A value in one short line; its type if it cannot be printed."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # such as a number of 5,000 digits
        text = f"of type {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "a string"}
    return words.get(kind, "None" if kind is type(None) else "a list of strings")
