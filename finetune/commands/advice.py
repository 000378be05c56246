"""What to type after an interruption: the whole command, for a shell."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from finetune.commands.console import INTERRUPTED, fail
from finetune.commands.options import given
from store.errors import Interrupted
from store.names import quoted


@contextmanager
def resumable(context: click.Context, *enough: str) -> Iterator[None]:
    """Say, when something is interrupted, which command goes on with it.

    Args:
        context: of the command as it was given.
        enough: options that `--resume` needs of a command that was given without it; all that were given if
            none is named.
    """
    try:
        yield
    except Interrupted:
        fail(f"interrupted; go on with: {resuming_command(context, enough)}", INTERRUPTED)
    except KeyboardInterrupt:
        command = command_line(context, given(context))
        fail(f"interrupted before there was anything new to keep; begin again with: {command}", INTERRUPTED)


def resuming_command(context: click.Context, enough: tuple[str, ...]) -> str:
    """The command that goes on with what a command has begun, for a shell."""
    chosen = {name: context.params[name] for name in enough}
    if not chosen or context.params["resume"]:
        chosen |= given(context)  # what was given to a resume, a moved --root say, is not stored yet
    chosen.pop("overwrite", None)  # else it would begin anew, or be refused
    return command_line(context, chosen | {"resume": True})


def command_line(context: click.Context, values: dict[str, Any]) -> str:
    """A command with some of its options and arguments, for a shell."""
    words, arguments = [], []
    for parameter in context.command.params:
        if parameter.name not in values:
            continue
        value = values[parameter.name]
        several = value if isinstance(value, tuple) else (value,)
        if isinstance(parameter, click.Argument):
            arguments += map(quoted, several)
        elif value is True:
            words.append(parameter.opts[0])
        else:
            words += [f"{parameter.opts[0]}{'=' if str(v)[:1] == '-' else ' '}{quoted(v)}" for v in several]
    if any(argument.startswith("-") for argument in arguments):
        arguments.insert(0, "--")
    return " ".join([_program(context), *words, *arguments])


def _program(context: click.Context) -> str:
    """The command's name as it was called, the program's before it."""
    name = str(context.find_root().info_name)
    command = context.command_path.removeprefix(name)
    script = Path(sys.argv[0])
    if script.suffix == ".py" and script.name == name:
        name = f"python {quoted(script)}"
    return f"{'tailcache' if name == '-c' else name}{command}"
