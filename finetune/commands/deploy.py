"""The commands `predict` and `export`."""

from typing import Any

import click

from extract.deploy.config import ExportConfig, PredictConfig
from finetune.commands import early
from finetune.commands.console import print_json, progress_bar, say
from finetune.commands.help import HelpCommand
from finetune.commands.options import PLACE, json_option, options


@click.command(cls=HelpCommand)
@click.argument("images", nargs=-1, required=True, type=PLACE)
@options(PredictConfig)
@json_option
def predict(as_json: bool, **values: Any) -> None:
    """Classify images of your own: files, folders, or tables with a column of paths.

    Prints CSV, a row for each image: path, class_1, probability_1, class_2, …
    """
    early.check_prediction(PredictConfig(**values))
    from analysis.csv_files import csv_text
    from extract.deploy.predict import predict as run

    with progress_bar() as progress:
        frame = run(PredictConfig(**values), progress)
    if as_json:
        print_json(frame.to_dict("records"))
    elif values["out"] is None:
        click.echo(csv_text(frame), nl=False)
    else:
        maps = "" if values["cam"] is None else f", class activation maps in {values['cam']}/"
        say(f"{values['out']}: {len(frame):,} images{maps}")


@click.command(cls=HelpCommand)
@options(ExportConfig)
@json_option
def export(as_json: bool, **values: Any) -> None:
    """Write a trained network for other programs, in its authors' own names."""
    early.check_export(ExportConfig(**values))
    from extract.deploy.export import export as run

    done = run(ExportConfig(**values))
    if as_json:
        print_json({"file": str(done.file), "json": str(done.described), "difference": done.difference})
        return
    say(
        f"{done.file}: read back, its logits differ by {done.difference:.0e} of the largest at most",
        f"{done.described}: how images reach it, and its classes",
    )
