"""Options of a command: made from the fields of its config, and turned back into a config."""

import dataclasses
import os
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click

from finetune.commands.help import GroupedOption
from store.options import Option, flag, own_options

# Options that are paths.
PLACES = {"out", "store", "ckpt", "root", "cache", "weights", "train", "val", "test", "class_names", "cam"}

json_option = click.option(
    "--json",
    "as_json",
    cls=GroupedOption,
    group="output",
    is_flag=True,
    help="print JSON instead of a table",
)


def options(config_class: type, **defaults: Any) -> Callable:
    """Give a command an option for every `Annotated` field of a config and of the configs in it.

    Args:
        config_class: the config.
        defaults: defaults of this command that differ from those of the fields.
    """

    nested = map(_nested_default, dataclasses.fields(config_class))
    for config in filter(dataclasses.is_dataclass, nested):
        defaults = vars(config) | defaults

    def decorate(command: Callable) -> Callable:
        for field, kind, option in reversed(list(option_fields(config_class))):
            command = _option(field.name, kind, option, defaults.get(field.name, field.default))(command)
        return command

    return decorate


def _nested_default(field: dataclasses.Field) -> Any:
    """The config that a field holds by default; None if it needs one."""
    return None if field.default_factory is dataclasses.MISSING else field.default_factory()


def option_fields(config_class: type) -> Iterator[tuple[dataclasses.Field, Any, Option]]:
    """Every field that is an option, nested configs included, as (field, type, option)."""
    hints, own = get_type_hints(config_class), own_options(config_class)
    for field in dataclasses.fields(config_class):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from option_fields(hints[field.name])
        elif field.name in own:
            yield field, *own[field.name]


class _Place(click.ParamType):
    """A path or an s3:// address; `~` is the home folder, even where the shell does not expand it."""

    name = "path"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Expand `~`; a file of that name is `./~`."""
        return os.path.expanduser(value)


PLACE = _Place()


def _option(name: str, kind: Any, option: Option, default: Any) -> Callable:
    shared = {"cls": GroupedOption, "group": option.group, "help": option.help}
    words: tuple[str, ...] = ()
    if get_origin(kind) in (types.UnionType, Union):
        kind, *others = (part for part in get_args(kind) if part is not type(None))
        words = tuple(word for part in others for word in get_args(part))
    if get_origin(kind) is tuple:
        type_ = PLACE if name in PLACES else get_args(kind)[0]
        return click.option(flag(name), type=type_, multiple=True, **shared)
    if kind is bool and default is None:  # what it is without being named depends on others
        names = f"{flag(name)}/--no-{flag(name)[2:]}"
        return click.option(names, default=None, show_default=option.default or False, **shared)
    if kind is bool:
        return click.option(flag(name), is_flag=True, **shared)
    type_ = click.Choice(get_args(kind)) if get_origin(kind) is Literal else kind
    type_ = PLACE if name in PLACES else type_
    if option.names is not None:
        type_ = _Registered(option.names) if option.others is None else _Suggested(option)
    if words:
        type_ = NumberOrWord(words)
    if default is dataclasses.MISSING:  # no `default=`: click would count even None as a value
        return click.option(flag(name), type=type_, required=True, **shared)
    shown = default is not None or option.default or False
    return click.option(flag(name), type=type_, default=default, show_default=shown, **shared)


class _Registered(click.Choice):
    """One of the names in a registry, looked up when needed."""

    def __init__(self, names: Callable[[], Iterable[str]]):
        self._names, self.case_sensitive = names, True

    @property
    def choices(self) -> tuple[str, ...]:
        """The names."""
        return tuple(self._names())


class _Suggested(_Registered):
    """One of the names of a registry, or another that is checked where it is used."""

    def __init__(self, option: Option):
        super().__init__(option.names)
        self.others = option.others

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it was given."""
        return value


class NumberOrWord(click.ParamType):
    """A number, or one of some words."""

    def __init__(self, words: tuple[str, ...]):
        self.words, self.name = words, "|".join(("float", *words))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Return the word or the number.

        Raises:
            click.BadParameter: it is neither.
        """
        try:
            return value if value in self.words else float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor {' or '.join(map(repr, self.words))}.", param, ctx)


def build(config_class: type, values: dict[str, Any], base: Any = None) -> Any:
    """A config, nested ones included, from flat option values.

    Args:
        config_class: the config.
        values: by option; others are as in `base`.
        base: a config of that class, by default one with its defaults.
    """
    hints = get_type_hints(config_class)
    content = {}
    for field in dataclasses.fields(config_class):
        if dataclasses.is_dataclass(hints[field.name]):
            own = _nested_default(field) if base is None else getattr(base, field.name)
            content[field.name] = build(hints[field.name], values, own)
        elif field.name in values:
            content[field.name] = values[field.name]
    return config_class(**content) if base is None else dataclasses.replace(base, **content)


def given(context: click.Context) -> dict[str, Any]:
    """The options that the user gave, with their values."""
    source = click.core.ParameterSource.COMMANDLINE
    return {k: v for k, v in context.params.items() if context.get_parameter_source(k) is source}
