"""Options whose values are the names in a registry, so that no list of names stands beside it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args


@dataclass(frozen=True)
class OneOf:
    """Beside the help of an `Annotated` field: its value is one of these names.

    Attributes:
        names: gives them, in the order in which they are shown. It is called when a choice is checked or
            printed, so that a config can be imported without what is registered.
    """

    names: Callable[[], Iterable[str]]


def registry_of(hint: Any) -> OneOf | None:
    """Where an `Annotated` type says that names come from, None where it does not."""
    return next((told for told in get_args(hint) if isinstance(told, OneOf)), None)


def with_names(hint: Any) -> Any:
    """The type of an `Annotated` field without its help, the names of its registry as a Literal."""
    kind, registry = get_args(hint)[0], registry_of(hint)
    if registry is None:
        return kind
    named = Literal[tuple(registry.names())]
    return named | None if type(None) in get_args(kind) else named
