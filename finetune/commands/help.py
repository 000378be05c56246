"""Help that can be read: options in groups, every text beside its option, examples at the end."""

import textwrap
from typing import Any

import click

from finetune.commands.examples import EXAMPLES
from store.options import GROUPS

FIRST_COLUMN = 30  # letters at most; an option that takes more has its text on the next line
INLINE = 20  # letters at most of choices that stand beside an option; longer ones end its text
VALUES = {"integer": "N", "float": "X", "text": "TEXT", "path": "PATH"}  # what stands for a value of a type
UNBROKEN = 40  # letters at most of a default that is kept on one line
NO_BREAK = "\xa0"


class GroupedOption(click.Option):
    """An option that stands under a heading of `--help`."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group

    def make_metavar(self, ctx: click.Context) -> str:
        """What stands for the value: choices where they are short, a letter for a number."""
        if isinstance(self.type, click.Choice):
            choices = "|".join(map(str, self.type.choices))
            return choices if len(choices) <= INLINE else "NAME"
        return "|".join(VALUES.get(part, part) for part in self.type.name.split("|"))

    def text(self, context: click.Context) -> str:
        """Help, with the choices that do not stand beside the option, and the default."""
        text = self.help or ""
        if not self.is_flag and self.make_metavar(context) == "NAME":
            text += f"; one of {', '.join(map(str, self.type.choices))}"
        extra = self.get_help_extra(context)
        if "default" in extra:
            told = self.show_default if isinstance(self.show_default, str) else extra["default"]
            text += " " + _unbroken(f"[default: {told}]")
        return text + (f" {_unbroken('[required]')}" if self.required else "")


class _WithExamples(click.Command):
    """What commands and groups have in common."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """`--help`, in the words of the other options."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.help = "show this help"
        return option

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        examples = EXAMPLES.get(self.name or "", ())
        if examples:
            with formatter.section("Examples" if len(examples) > 1 else "Example"):
                indent = " " * formatter.current_indent
                formatter.write("".join(f"{indent}{line}\n" for line in examples))


class HelpCommand(_WithExamples):
    """A command whose options are shown in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write every option under the heading of its group."""
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in GROUPS}
        for option in self.get_params(ctx):
            if isinstance(option, GroupedOption):
                groups[option.group].append((option.get_help_record(ctx)[0], option.text(ctx)))
            elif isinstance(option, click.Option):  # --help, which click makes
                groups["output"].append(option.get_help_record(ctx))
        lengths = [len(names) for entries in groups.values() for names, _ in entries]
        first = max(length for length in lengths if length <= FIRST_COLUMN)
        for name, entries in groups.items():
            if entries:
                with formatter.section(name.capitalize()):
                    _write_entries(formatter, entries, first)


class HelpGroup(_WithExamples, click.Group):
    """A group of such commands, shown in the order in which they are used, each with its whole first line."""

    command_class = HelpCommand

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which the commands were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what every command is for."""
        told = [(name, self.commands[name].get_short_help_str(limit=200)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            _write_entries(formatter, told, max(len(name) for name, _ in told))


def _unbroken(text: str) -> str:
    return text.replace(" ", NO_BREAK) if len(text) <= UNBROKEN else text


def _write_entries(formatter: click.HelpFormatter, entries: list[tuple[str, str]], first: int) -> None:
    indent = formatter.current_indent
    for names, text in entries:
        lines = textwrap.wrap(text, max(20, formatter.width - indent - first - 2), break_on_hyphens=False)
        if len(names) > first:
            lines.insert(0, "")
        for name, line in zip([names, *[""] * (len(lines) - 1)], lines, strict=True):
            written = f"{'':{indent}}{name:<{first}}  {line.replace(NO_BREAK, ' ')}"
            formatter.write(f"{written.rstrip()}\n")
