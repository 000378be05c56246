"""Output of every command: one-line errors, notes, progress, tables, JSON."""

import json
import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from finetune.commands.failures import failure, in_one_line
from finetune.commands.help import HelpGroup
from store.names import visible
from store.notes import NOTES

INTERRUPTED = 130


class Program(HelpGroup):
    """The program: a group of commands whose errors are one line each."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command; a Ctrl-C that it does not handle itself is one line."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            fail("interrupted; the same command starts over", INTERRUPTED)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program and exit; an error that the user can fix is one line and exit code 2."""
        kwargs["standalone_mode"] = False
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that temporary files are removed
        warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd but readable images
        warnings.filterwarnings("ignore", message="Glyph")  # about class names that no font can draw
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
        except BrokenPipeError:
            sys.exit(1)
        except Exception as error:
            line = failure(error)
            if line is None:
                raise
            fail(line)
        finally:
            NOTES.removeHandler(printer)
        sys.exit(result if isinstance(result, int) else 0)


class _PrintedNotes(logging.Handler):
    """Print notes on stderr, each once per command."""

    def __init__(self) -> None:
        super().__init__()
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a note that is new."""
        message = record.getMessage()
        if message not in self._printed:
            self._printed.add(message)
            click.echo(f"tailcache: note: {visible(message)}", err=True)


def fail(message: str, code: int = 2) -> None:
    """Print one line on stderr and exit."""
    click.echo(f"tailcache: {visible(in_one_line(message))}", err=True)
    sys.exit(code)


class _Bars(Progress):
    """A progress display that shows only tasks with work left, and how they stand in lines below.

    Beside the bars, a long line would push bar and time left out of a screen of 80 columns.
    """

    def get_renderables(self) -> Iterator[RenderableType]:
        """The table of tasks, then a line for each that has something to say."""
        left = [task for task in self.tasks if task.completed < (task.total or 0)]
        yield self.make_tasks_table(left)
        yield from (Text(task.fields["status"]) for task in left if task.fields.get("status"))


def progress_bar() -> Progress:
    """A progress bar with time left, on stderr; hidden if that is not a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # Not rich's own terminal detection, which FORCE_COLOR overrides.
    return _Bars(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)


def table(header: list[str], rows: list[list[str]], title: str | None = None) -> Table:
    """A plain table: text left-aligned, numbers right-aligned, nothing truncated."""
    made = Table(box=None, pad_edge=False, header_style="", title=title, title_justify="left")
    for i, name in enumerate(header):
        made.add_column(name, no_wrap=True, justify="left" if i < 2 else "right")
    for row in rows:
        made.add_row(*map(visible, row))
    return made


@contextmanager
def live_table() -> Iterator[tuple[Progress, Callable[[Table], None] | None]]:
    """A progress bar with a table above it, on stderr, both removed at the end.

    Yields:
        The bar and a function that shows a table; a hidden bar and None if stderr is not a terminal.
    """
    progress = progress_bar()
    if progress.disable:
        yield progress, None
        return
    shown: list[Table] = []
    with Live(console=progress.console, get_renderable=lambda: Group(*shown[-1:], progress), transient=True):
        yield progress, shown.append


def say(*lines: str) -> None:
    """Print lines on stdout, with control characters in names made visible."""
    click.echo("\n".join(map(visible, lines)))


def print_json(content: Any) -> None:
    """Print JSON on stdout, NaN as null."""
    from analysis.tables import without_nan

    click.echo(json.dumps(without_nan(content), indent=2))


def print_table(made: Table) -> None:
    """Print a table on stdout, as wide as it needs."""
    Console(width=10_000, color_system=None, highlight=False, markup=False).print(made)
