"""What every command shares: options from a config's fields, errors in one line, progress, JSON."""

import dataclasses
import json
import logging
import os
import signal
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from store.choices import OneOf, registry_of
from store.errors import UserError
from store.names import visible
from store.notes import NOTES

INTERRUPTED = 130
json_option = click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
OUT_OF_MEMORY_ADVICE = "ask for less (iterations, batch size, width, image size)"


class Program(click.Group):
    """A group whose errors are one line each."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command; Ctrl-C that it does not answer itself begins anew."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            fail("interrupted; the same command begins anew", INTERRUPTED)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program and leave it with an exit code; what a user can mend is one line and code 2."""
        kwargs["standalone_mode"] = False
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that unfinished files are removed
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd but readable images
        warnings.filterwarnings("ignore", message="Glyph")  # of class names that the figures' font lacks
        printer = _PrintedNotes()
        NOTES.addHandler(printer)
        try:
            result = super().main(*args, **kwargs)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.ctx.get_help())
            sys.exit(0)
        except click.ClickException as error:
            command = error.ctx.command_path if getattr(error, "ctx", None) else "tailcache"
            fail(f"{error.format_message()} (see {command} --help)")
        except UserError as error:
            fail(str(error))
        except MemoryError as error:
            fail(f"out of memory: {error}; {OUT_OF_MEMORY_ADVICE}")
        except BrokenPipeError:
            sys.exit(1)
        except UnicodeEncodeError as error:
            fail(f"{error.object!r}: a name that is not UTF-8; rename it")
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            fail(f"out of memory: {OUT_OF_MEMORY_ADVICE}")
        except OSError as error:  # a full disk, a folder that may not be written
            if error.filename is None:
                fail(str(error))
            fail(f"{error.filename}: {error.strerror}")
        finally:
            NOTES.removeHandler(printer)
        sys.exit(result if isinstance(result, int) else 0)


class _PrintedNotes(logging.Handler):
    """Notes on stderr, each once in a command."""

    def __init__(self) -> None:
        super().__init__()
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a note that is new."""
        message = record.getMessage()
        if message not in self._printed:
            self._printed.add(message)
            click.echo(f"tailcache: note: {visible(message)}", err=True)


def _is_out_of_memory(error: RuntimeError) -> bool:
    # torch's own class on GPUs, a plain RuntimeError on CPUs
    signs = ("can't allocate memory", "not enough memory", "out of memory")
    return any(sign in str(error) for sign in signs)


def fail(message: str, code: int = 2) -> None:
    """Print one line on stderr and leave."""
    line = " ".join(part.strip() for part in message.splitlines()).strip()
    click.echo(f"tailcache: {visible(line)}", err=True)
    sys.exit(code)


def options(config_class: type, **defaults: Any) -> Callable:
    """Give a command an option for every `Annotated` field of a config and of the configs in it.

    Args:
        config_class: the config.
        defaults: of this command, where they are others than the fields'.
    """

    def decorate(command: Callable) -> Callable:
        for field, hint in reversed(list(_annotated_fields(config_class))):
            command = _option(field, hint, defaults.get(field.name, field.default))(command)
        return command

    return decorate


def _annotated_fields(config_class: type):
    hints = get_type_hints(config_class, include_extras=True)
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _annotated_fields(hint)
        elif get_origin(hint) is Annotated:
            yield field, hint


class _Place(click.ParamType):
    """A path, or an address in a bucket; `~` is the user's folder, also where a shell leaves it as it is."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The path as it is meant; `./~` is a file of that name."""
        return os.path.expanduser(value)


PLACE = _Place()
PLACES = {"out", "store", "ckpt", "root", "cache"}  # options that are


def _option(field: dataclasses.Field, hint: Any, default: Any) -> Callable:
    kind, help_text, *_ = get_args(hint)
    words: tuple[str, ...] = ()
    if get_origin(kind) in (types.UnionType, Union):
        kind, *others = (part for part in get_args(kind) if part is not type(None))
        words = tuple(word for part in others for word in get_args(part))
    name = "--" + field.name.replace("_", "-")
    if get_origin(kind) is tuple:
        return click.option(name, type=get_args(kind)[0], multiple=True, help=help_text)
    if kind is bool:
        return click.option(name, is_flag=True, help=help_text)
    type_ = click.Choice(get_args(kind)) if get_origin(kind) is Literal else kind
    type_ = PLACE if field.name in PLACES else type_
    if (registry := registry_of(hint)) is not None:
        type_ = _Registered(registry)
    if words:
        type_ = NumberOrWord(words)
    if default is dataclasses.MISSING:  # click takes even a default of None for a value
        return click.option(name, type=type_, required=True, help=help_text)
    shown = default is not None
    return click.option(name, type=type_, default=default, show_default=shown, help=help_text)


class _Registered(click.Choice):
    """One of the names that a registry has when it is asked."""

    def __init__(self, registry: OneOf):
        self._registry, self.case_sensitive = registry, True

    @property
    def choices(self) -> tuple[str, ...]:
        """The names."""
        return tuple(self._registry.names())


class NumberOrWord(click.ParamType):
    """A number, or one of some words."""

    def __init__(self, words: tuple[str, ...]):
        self.words, self.name = words, "|".join(("float", *words))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """The word, or the number.

        Raises:
            click.BadParameter: it is neither.
        """
        try:
            return value if value in self.words else float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor {' or '.join(map(repr, self.words))}.", param, ctx)


def build(config_class: type, values: dict[str, Any]) -> Any:
    """A config from flat option values, the configs in it included."""
    hints = get_type_hints(config_class)
    content = {}
    for field in dataclasses.fields(config_class):
        if dataclasses.is_dataclass(hints[field.name]):
            content[field.name] = build(hints[field.name], values)
        elif field.name in values:
            content[field.name] = values[field.name]
    return config_class(**content)


def given(context: click.Context) -> dict[str, Any]:
    """The options that the user named."""
    source = click.core.ParameterSource.COMMANDLINE
    return {k: v for k, v in context.params.items() if context.get_parameter_source(k) is source}


class _Bars(Progress):
    """Tasks are shown while something is left of them: none that had nothing to do, and none that is done."""

    def get_renderables(self) -> Iterator[Table]:
        """The table of tasks."""
        yield self.make_tasks_table([task for task in self.tasks if task.completed < (task.total or 0)])


def progress_bar() -> Progress:
    """A bar with time left on stderr; nothing where that is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    # Not the console's own idea of a terminal, which FORCE_COLOR may change.
    return _Bars(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)


def table(header: list[str], rows: list[list[str]], title: str | None = None) -> Table:
    """A plain table: text on the left, numbers on the right, nothing cut."""
    made = Table(box=None, pad_edge=False, header_style="", title=title, title_justify="left")
    for i, name in enumerate(header):
        made.add_column(name, no_wrap=True, justify="left" if i < 2 else "right")
    for row in rows:
        made.add_row(*map(visible, row))
    return made


@contextmanager
def live_table() -> Iterator[tuple[Progress, Callable[[Table], None] | None]]:
    """A bar with a table above it, both on stderr and gone at the end.

    Yields the bar and what shows a table; None in its place, and a hidden bar, where that is no terminal.
    """
    progress = progress_bar()
    if progress.disable:
        yield progress, None
        return
    shown: list[Table] = []
    with Live(console=progress.console, get_renderable=lambda: Group(*shown[-1:], progress), transient=True):
        yield progress, shown.append


def say(*lines: str) -> None:
    """Lines on stdout, with nothing in them that a terminal would obey, whoever made up the names in them."""
    click.echo("\n".join(map(visible, lines)))


def print_json(content: Any) -> None:
    """JSON on stdout, NaN as null."""
    from analysis.tables import without_nan

    click.echo(json.dumps(without_nan(content), indent=2))


def print_table(made: Table) -> None:
    """A table on stdout, as wide as it needs."""
    Console(width=10_000, color_system=None, highlight=False, markup=False).print(made)
