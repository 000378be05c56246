"""Layout of `--help`: options in groups, their texts in a column, examples at the end."""

import textwrap
from typing import Any

import click

from finetune.commands.examples import EXAMPLES
from store.options import GROUPS

FIRST_COLUMN = 30  # most characters; the text of a longer option starts on the next line
INLINE = 20  # most characters of choices shown beside an option; longer ones follow its text
VALUES = {"integer": "N", "float": "X", "text": "TEXT", "path": "PATH"}  # placeholders by type
UNBROKEN = 40  # most characters of a default that is kept on one line
NO_BREAK = "\xa0"


class GroupedOption(click.Option):
    """An option that `--help` shows under a heading."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group

    def make_metavar(self, ctx: click.Context) -> str:
        """Placeholder of the value: its choices if they are short, else a word or letter."""
        if isinstance(self.type, click.Choice):
            choices = "|".join(map(str, self.type.choices))
            return choices if len(choices) <= INLINE else "NAME"
        return "|".join(VALUES.get(part, part) for part in self.type.name.split("|"))

    def text(self, context: click.Context) -> str:
        """Help text, with choices that are too long to stand beside the option, and the default."""
        text = self.help or ""
        if not self.is_flag and self.make_metavar(context) == "NAME":
            text += f"; one of {', '.join(map(str, self.type.choices))}"
            others = getattr(self.type, "others", None)
            text += f", or {others}" if others else ""
        extra = self.get_help_extra(context)
        if "default" in extra:
            default = self.show_default if isinstance(self.show_default, str) else extra["default"]
            text += " " + _unbroken(f"[default: {default}]")
        return text + (f" {_unbroken('[required]')}" if self.required else "")


class _WithExamples(click.Command):
    """Common base of commands and groups."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """`--help`, with our text."""
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
        """Write all options under the headings of their groups."""
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
    """A group of commands, listed in order of use with the whole first line of their help."""

    command_class = HelpCommand

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which the commands were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        names = self.list_commands(ctx)
        entries = [(name, self.commands[name].get_short_help_str(limit=200)) for name in names]
        with formatter.section("Commands"):
            _write_entries(formatter, entries, max(map(len, names)))


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
