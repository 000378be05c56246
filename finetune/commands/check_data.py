"""`train --check-data` and `extract --check-data`: the faults of a data set in a table, and nothing else."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from extract.config import ExtractConfig, TrainConfig
from extract.sources.presence import check_images_exist
from finetune.commands.console import progress_bar, say
from finetune.commands.help import GroupedOption
from finetune.commands.options import build
from store.errors import UserError

if TYPE_CHECKING:
    from extract.audit.report import DataReport

FOUND = 1  # exit code, as that of `store verify`
COLUMN = 12  # characters of a column of counts

option = click.option(
    "--check-data",
    cls=GroupedOption,
    group="data",
    is_flag=True,
    help="do nothing but read every image and count missing, empty and unreadable files, images that "
    "occur twice (in one split, in two, in two classes) and classes without images; exit code 0 if there are "
    "none, 1 if there are any, 2 if the data set cannot be listed",
)


def checks_data(config_class: type) -> Callable:
    """Give a command the option --check-data, with which it does nothing else.

    Args:
        config_class: of the command, with a DatasetConfig.
    """

    def decorate(run: Callable) -> Callable:
        @option
        @wraps(run)
        def command(context: click.Context, check_data: bool, **values: Any) -> None:
            if check_data:
                context.exit(run_check(build(config_class, values)))
            run(context, **values)

        return command

    return decorate


def run_check(config: TrainConfig | ExtractConfig) -> int:
    """Print the faults of the data set that a command would use; nothing is written.

    Returns:
        The exit code.

    Raises:
        UserError: the data set cannot be listed, or is that of a run to resume or of a checkpoint.
    """
    described = "a run that is resumed has" if config.resume else None
    if described is None and config.network.arch is None:
        described = "a checkpoint of `train` has"
    if described is not None:
        raise UserError(
            f"--check-data: {described} its data set already, which was read then; name the data set by the "
            "options of `train`, without --resume or --ckpt"
        )
    dataset = config.dataset.resolved()
    check_images_exist(dataset)
    from extract.audit.report import check_data

    with progress_bar() as progress:
        report = check_data(dataset, progress)
    say(*_lines(report))
    return 0 if report.is_sound else FOUND


def _lines(report: "DataReport") -> list[str]:
    """The table of counts, the first examples of each kind of fault, and the result."""
    counts = {"images": report.n_images} | {fault.kind: fault.counts for fault in report.faults}
    width = max(map(len, counts))
    lines = [" " * width + "".join(f"{split:>{COLUMN}}" for split in report.n_images)]
    for kind, of_split in counts.items():
        lines.append(f"{kind:<{width}}" + "".join(f"{n:>{COLUMN},}" for n in of_split.values()))
    for fault in report.faults:
        if fault.examples:
            lines += [f"{fault.kind}:", *(f"  {example}" for example in fault.examples)]
        if n_more := fault.n_examples - len(fault.examples):
            lines.append(f"  and {n_more:,} more")
    n_images = sum(report.n_images.values())
    if report.is_sound:
        return [
            *lines,
            f"{report.place}: {n_images:,} images of {report.n_classes:,} classes, no fault found",
        ]
    times = f"{report.n_lacking:,} time{'s' * (report.n_lacking > 1)}"
    lacking = f"; no images of a class in a split: {times}" if report.n_lacking else ""
    return [*lines, f"{report.place}: {report.n_bad:,} of {n_images:,} images have a fault{lacking}"]
