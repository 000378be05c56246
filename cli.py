"""The command line: options to a frozen config, one call, print.

Nothing heavy is imported before a command runs. An error that the user can mend is one line on stderr and
exit code 2; a progress bar is shown only on a terminal.
"""

import dataclasses
import json
import shlex
import signal
import sys
import types
import warnings
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from extract.config import EvaluateConfig, ExtractConfig, TrainConfig
from finetune.config import AnalyzeConfig, FinetuneConfig
from store.errors import UserError

INTERRUPTED = 130
OUT_OF_MEMORY_ADVICE = "ask for less (iterations, batch size, width, image size)"
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Program(click.Group):
    """A group whose errors are one line each."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that unfinished files are removed
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd but readable images
        warnings.filterwarnings("ignore", message="Glyph")  # of class names that the figures' font lacks
        try:
            result = super().main(*args, **kwargs)
        except click.exceptions.Abort:
            fail("interrupted", INTERRUPTED)
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
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            fail(f"out of memory: {OUT_OF_MEMORY_ADVICE}")
        except OSError as error:  # a full disk, a folder that may not be written
            if error.filename is None:
                fail(str(error))
            fail(f"{error.filename}: {error.strerror}")
        sys.exit(result if isinstance(result, int) else 0)


def _is_out_of_memory(error: RuntimeError) -> bool:
    # torch's own class on GPUs, a plain RuntimeError on CPUs
    signs = ("can't allocate memory", "not enough memory", "out of memory")
    return any(sign in str(error) for sign in signs)


def fail(message: str, code: int = 2) -> None:
    """Print one line on stderr and leave."""
    click.echo("tailcache: " + " ".join(message.split()), err=True)
    sys.exit(code)


def options(config_class: type) -> Callable:
    """Give a command an option for every `Annotated` field of a config and of the configs in it."""

    def decorate(command: Callable) -> Callable:
        for field, hint in reversed(list(_annotated_fields(config_class))):
            command = _option(field, hint)(command)
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


def _option(field: dataclasses.Field, hint: Any) -> Callable:
    kind, help_text = get_args(hint)
    if get_origin(kind) in (types.UnionType, Union):
        kind = next(part for part in get_args(kind) if part is not type(None))
    name = "--" + field.name.replace("_", "-")
    if kind is bool:
        return click.option(name, is_flag=True, help=help_text)
    type_ = click.Choice(get_args(kind)) if get_origin(kind) is Literal else kind
    if field.default is dataclasses.MISSING:  # click takes even a default of None for a value
        return click.option(name, type=type_, required=True, help=help_text)
    shown = field.default is not None
    return click.option(name, type=type_, default=field.default, show_default=shown, help=help_text)


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
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)


def print_json(content: Any) -> None:
    """JSON on stdout, NaN as null."""
    from analysis.tables import without_nan

    click.echo(json.dumps(without_nan(content), indent=2))


json_option = click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")


@click.group(cls=Program, context_settings=SETTINGS)
@click.version_option(package_name="tailcache", prog_name="tailcache")
def main() -> None:
    """Feature caches for long-tailed image classification.

    Train once, extract feature maps once, then fine-tune the classifier in seconds.
    """


@main.command()
@options(TrainConfig)
@click.pass_context
def train(context: click.Context, **values: Any) -> None:
    """Phase I: train a network on all classes."""
    from extract.resume import resumed_config
    from extract.train import TrainingInterrupted
    from extract.train import train as run

    named = given(context)
    config = resumed_config(values["out"], named) if values["resume"] else build(TrainConfig, values)
    with progress_bar() as progress:
        try:
            checkpoint = run(config, progress)
        except TrainingInterrupted:
            progress.stop()
            fail(f"interrupted; go on with: train --out {shlex.quote(config.out)} --resume", INTERRUPTED)
    last = checkpoint.history[-1]
    accuracy = ", ".join(f"{k.removesuffix('_accuracy')} {v:.1f}" for k, v in last.items() if "accuracy" in k)
    counts = checkpoint.class_counts
    click.echo(f"{len(counts)} classes of {max(counts)} to {min(counts)} training images")
    click.echo(f"{config.out}/checkpoint.pt: {checkpoint.epoch} epochs, accuracy in %: {accuracy}")
    report_skipped(checkpoint.dataset["skipped"])


def report_skipped(skipped: tuple[str, ...]) -> None:
    """List images that were left out, on stderr."""
    if skipped:
        click.echo(f"left out, being unreadable: {', '.join(skipped)}", err=True)


@main.command()
@options(ExtractConfig)
def extract(**values: Any) -> None:
    """Bring every image through the network once and cache what Phase II needs."""
    from extract.dump import extract as run

    with progress_bar() as progress:
        shapes = run(ExtractConfig(**values), progress)
    for split, shape in shapes.items():
        what = "feature maps (N, H, W, C)" if len(shape) == 4 else "pooled features (N, C)"
        click.echo(f"{values['store']}/{split}: {what} {shape}")


@main.command()
@options(FinetuneConfig)
@json_option
def finetune(as_json: bool, **values: Any) -> None:
    """Phase II: fine-tune the FC layer on cached features."""
    from finetune.train import finetune as run

    with progress_bar() as progress:
        result = run(FinetuneConfig(**values), progress)
    if as_json:
        print_json(result.summary)
        return
    after, before = result.summary, result.summary["phase1"]
    names = ("overall", "many", "medium", "few")
    cells = [f"{n} {before[n]:.1f} → {after[n]:.1f}" for n in names if after[n] is not None]
    seconds = sum(result.config["facts"]["seconds"].values())
    click.echo(f"{result.path}: {'  '.join(cells)}  ({seconds:.1f} s)")


@main.command()
@options(EvaluateConfig)
@json_option
def evaluate(as_json: bool, **values: Any) -> None:
    """Run a checkpoint's network on images, end to end."""
    from analysis.accuracy import summarise
    from extract.evaluate import evaluate as run

    with progress_bar() as progress:
        frame = run(EvaluateConfig(**values), progress)
    summary = summarise(frame, values["shot_rule"])
    if as_json:
        print_json(summary | {"per_class": frame.to_dict("records")})
        return
    if len(frame) <= 100:
        click.echo(frame.to_string(index=False, float_format="%.1f"))
    groups = [f"{n} {summary[n]:.2f}" for n in ("overall", "many", "medium", "few") if summary[n] is not None]
    counts = f"{summary['n_correct']} of {summary['n_test']} correct"
    click.echo(f"{counts}: {'  '.join(groups)}  (shot rule {values['shot_rule']})")


@main.command()
@click.argument("runs", nargs=-1, required=True)
@options(AnalyzeConfig)
@json_option
def analyze(as_json: bool, **values: Any) -> None:
    """Lay runs side by side: tables, CSV files and figures."""
    from finetune.analyze import analyze as run

    analysis = run(AnalyzeConfig(**values))
    if as_json:
        comparison = analysis.comparison.to_dict("records")
        files = [str(path) for path in analysis.files]
        print_json({"comparison": comparison, "n_classes": analysis.n_classes, "files": files})
        return
    print_analysis(analysis, values["shot_rule"])


def print_analysis(analysis: Any, shot_rule: str) -> None:
    """The comparison as a table, differences from Phase I under each configuration, and the files."""
    from analysis.tables import comparison_table

    click.echo(comparison_table(analysis.comparison, analysis.n_classes))
    click.echo(
        f"(number of classes), mean ± std over runs, shot rule {shot_rule}; head and tail are the paper's"
    )
    for path in analysis.files:
        click.echo(f"  {path}")


@main.command()
@click.option("--out", default="runs/demo", show_default=True, help="folder of everything the demo makes")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N")
def demo(out: str, device: str) -> None:
    """Every phase on scikit-learn's digits, long-tailed, three seeds: a minute or two on two cores."""
    from extract.dump import extract as run_extract
    from extract.train import train as run_train
    from finetune.analyze import analyze as run_analyze
    from finetune.demo import SEEDS, plan_demo
    from finetune.train import finetune as run_finetune

    runs = []
    with progress_bar() as progress:
        for seed in SEEDS:
            phases = plan_demo(out, seed, device)
            click.echo(f"seed {seed}: train, extract, {', '.join(run.method for run in phases.finetune)}")
            run_train(phases.train, progress)
            run_extract(phases.extract, progress)
            runs += [run_finetune(config, progress) for config in phases.finetune]
    runs.sort(key=lambda run: run.config["method"] != "fsa")
    config = AnalyzeConfig(tuple(str(run.path) for run in runs), f"{out}/report")
    print_analysis(run_analyze(config), config.shot_rule)


if __name__ == "__main__":
    main()
