"""Advice after an interruption: the whole command that resumes, ready for a shell."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from extract.networks.factory import is_factory
from extract.torchrun.environment import is_first_process
from finetune.commands.console import INTERRUPTED, fail
from finetune.commands.options import given
from store.errors import Interrupted
from store.names import quoted


@contextmanager
def resumable(context: click.Context, *enough: str) -> Iterator[None]:
    """On an interruption, exit with one line that has the command to resume with; the first process says it.

    Args:
        context: click's context of the command.
        enough: options that a resuming command needs; with none, all that were given.
    """
    try:
        yield
    except Interrupted:
        if not is_first_process():
            sys.exit(INTERRUPTED)
        fail(f"interrupted; continue with: {resuming_command(context, enough)}", INTERRUPTED)
    except KeyboardInterrupt:
        command = command_line(context, given(context))
        fail(f"interrupted before anything new was saved; start again with: {command}", INTERRUPTED)


def resuming_command(context: click.Context, enough: tuple[str, ...]) -> str:
    """The command that resumes an interrupted one, for a shell."""
    chosen = {name: context.params[name] for name in enough}
    if is_factory(context.params.get("arch") or ""):  # which only the user may name
        chosen["arch"] = context.params["arch"]
    if not enough or context.params["resume"]:
        chosen |= given(context)  # options of a resumed run, such as a moved --root, are not saved yet
    chosen.pop("overwrite", None)  # it would start over, or be refused beside --resume
    return command_line(context, chosen | {"resume": True})


def command_line(context: click.Context, values: dict[str, Any]) -> str:
    """A command line with these options and arguments, for a shell."""
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
        elif value is False and parameter.secondary_opts:
            words.append(parameter.secondary_opts[0])
        else:
            words += [f"{parameter.opts[0]}{'=' if str(v)[:1] == '-' else ' '}{quoted(v)}" for v in several]
    if any(argument.startswith("-") for argument in arguments):
        arguments.insert(0, "--")
    return " ".join([_program(context), *words, *arguments])


def _program(context: click.Context) -> str:
    """Program and command, as they were called."""
    name = str(context.find_root().info_name)
    command = context.command_path.removeprefix(name)
    script = Path(sys.argv[0])
    if script.suffix == ".py" and script.name == name:
        name = f"python {quoted(script)}"
    return f"{'tailcache' if name == '-c' else name}{command}"
