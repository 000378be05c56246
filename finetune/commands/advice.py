"""Advice after an interruption: the whole command that resumes, ready for a shell."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from extract.networks.factory import is_factory
from extract.torchrun.environment import is_first_process, n_processes
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
        _leave_to_first()
        fail(f"interrupted; continue with: {resuming_command(context, enough)}", INTERRUPTED)
    except KeyboardInterrupt:
        _leave_to_first()  # torchrun ends the others when one process fails, and that one says why
        command = command_line(context, given(context))
        fail(f"interrupted before anything new was saved; start again with: {command}", INTERRUPTED)


def _leave_to_first() -> None:
    """Exit without a word unless this is the process that prints."""
    if not is_first_process():
        sys.exit(INTERRUPTED)


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
    return " ".join([f"{_program(context)} {_command(context)}".rstrip(), *words, *arguments])


def joining_command(context: click.Context, store: str) -> str:
    """The command that completes a store whose parts are written, for a shell."""
    return f"{_program(context)} store join {quoted(store)}"


def _program(context: click.Context) -> str:
    """The program, as it was called; of torchrun's options it knows nothing, so `…` stands for them."""
    name = str(context.find_root().info_name)
    script = Path(sys.argv[0])
    if n_processes() > 1:
        return f"torchrun … {quoted(script) if script.suffix == '.py' else '-m cli'}"
    if script.suffix == ".py" and script.name == name:
        return f"python {quoted(script)}"
    return "tailcache" if name == "-c" else name


def _command(context: click.Context) -> str:
    """The command without the program: `train`, `store convert`."""
    return context.command_path.removeprefix(str(context.find_root().info_name)).strip()
