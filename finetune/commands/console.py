"""What every command prints: errors in one line, progress, tables, JSON."""

import json
import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from finetune.commands.failures import failure, in_one_line
from finetune.commands.help import HelpGroup
from store.names import visible
from store.notes import NOTES

INTERRUPTED = 130


class Program(HelpGroup):
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


def fail(message: str, code: int = 2) -> None:
    """Print one line on stderr and leave."""
    click.echo(f"tailcache: {visible(in_one_line(message))}", err=True)
    sys.exit(code)


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
