"""How a config's field becomes an option of the command line: its help, group and bounds.

Configs write `iterations: Annotated[int, Option("SGD steps", "schedule", least=1)] = 6400`. Nothing heavy is
imported here, so that `--help` answers at once.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from store.errors import UserError

Group = Literal[  # in the order of `--help`
    "files",
    "data",
    "network",
    "storage",
    "sweep",
    "method",
    "schedule",
    "augmentation",
    "choosing",
    "machine",
    "output",
]
GROUPS: tuple[str, ...] = get_args(Group)
Registered = TypeVar("Registered")
MOST = 2**32  # bound of every number: beyond it are overflows, not settings


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of the command line, beside the field that holds it.

    Attributes:
        help: what it is, understood without the help of other options.
        group: the heading of `--help` that it stands under.
        default: what a default of None means, in words: "the recipe's".
        least: the smallest number allowed.
        above: the number that the value must be larger than.
        below: the number that the value must be smaller than.
        most: the largest number allowed, beside `least` or `above`, if it is not `below` that bounds it.
        names: returns the valid names, in the order in which they are shown. It is called when a choice is
            checked or printed, so that registries can grow after the config is imported.
        others: other values that are valid besides `names`, in words. The names are then only shown, and the
            code that uses the value checks it.
    """

    help: str
    group: Group
    default: str | None = None
    least: float | None = None
    above: float | None = None
    below: float = MOST
    most: float | None = None
    names: Callable[[], Iterable[str]] | None = None
    others: str | None = None

    def kind_with_names(self, kind: Any) -> Any:
        """The type of the field, as a Literal of the valid names if it is one of `names`."""
        if self.names is None or self.others is not None:
            return kind
        named = Literal[tuple(self.names())]
        return named | None if type(None) in get_args(kind) else named


@cache
def own_options(config_class: type) -> dict[str, tuple[Any, Option]]:
    """Type and option of every field that is an option, by name, without those of nested configs."""
    hints = get_type_hints(config_class, include_extras=True)
    found = {field.name: hints[field.name] for field in dataclasses.fields(config_class)}
    return {name: get_args(hint) for name, hint in found.items() if get_origin(hint) is Annotated}


def registered(option: str, registry: Mapping[str, Registered], name: str) -> Registered:
    """The entry of a registry that the user named with an option.

    Raises:
        UserError: there is none; the message lists the names.
    """
    if name not in registry:
        raise UserError(f"{option} {name}: unknown; expected one of {', '.join(registry)}")
    return registry[name]


def flag(name: str) -> str:
    """A field's name on the command line: tau_s is --tau-s."""
    return "--" + name.replace("_", "-")


def check_bounds(config: Any, *names: str) -> None:
    """Check the numbers of a config against the bounds of their options. None and words pass.

    Args:
        config: the config; nested ones are not checked.
        names: fields to check; by default all.

    Raises:
        UserError: a number out of its bounds, NaN, or 2^32 or more where nothing else is said.
    """
    for name, (_, option) in own_options(type(config)).items():
        value = getattr(config, name)
        if value is None or isinstance(value, str) or (names and name not in names):
            continue
        below = "2^32" if option.below == MOST else option.below
        if option.most is not None and option.above is not None:
            if not option.above < value <= option.most:
                raise UserError(
                    f"{flag(name)} {value:g}: must be above {option.above}, and {option.most} at most"
                )
            continue
        if option.most is not None and not option.least <= value <= option.most:
            raise UserError(f"{flag(name)} {value:g}: must be from {option.least} to {option.most}")
        if option.least is not None and not option.least <= value < option.below:
            raise UserError(f"{flag(name)} {value}: must be {option.least} or more, and below {below}")
        if option.above is not None and not option.above < value < option.below:
            raise UserError(f"{flag(name)} {value:g}: must be above {option.above}, and below {below}")
