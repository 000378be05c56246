"""The command line: options to a frozen config, one call, print.

Nothing heavy is imported before a command runs. An error that the user can mend is one line on stderr and
exit code 2; a progress bar is shown only on a terminal.
"""

import shlex
from typing import Any

import click

from console import (
    INTERRUPTED,
    Program,
    build,
    fail,
    given,
    json_option,
    live_table,
    options,
    print_json,
    print_table,
    progress_bar,
    table,
)
from extract.config import EvaluateConfig, ExtractConfig, TrainConfig
from finetune.config import AnalyzeConfig, FinetuneConfig
from finetune.sweep_config import SweepConfig
from store.errors import Interrupted
from store.notes import note
from store_commands import store_group

GO_ON = "interrupted; go on with the same command, with --resume and without --overwrite ({})"
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


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
    from extract.train import train as run

    named = given(context)
    config = resumed_config(values["out"], named) if values["resume"] else build(TrainConfig, values)
    with progress_bar() as progress:
        try:
            checkpoint = run(config, progress)
        except Interrupted:
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
        try:
            shapes = run(ExtractConfig(**values), progress)
        except Interrupted:
            progress.stop()
            fail(f"interrupted; go on with the same command and --resume ({values['store']})", INTERRUPTED)
    for split, shape in shapes.items():
        what = "feature maps (N, H, W, C)" if len(shape) == 4 else "pooled features (N, C)"
        n_views = values["views"] if split == "train" else 1
        views = f", {n_views} views of each of {shape[0] // n_views:,} images" if n_views > 1 else ""
        click.echo(f"{values['store']}/{split}: {what} {shape}{views}")


@main.command()
@options(FinetuneConfig)
@json_option
@click.pass_context
def finetune(context: click.Context, as_json: bool, **values: Any) -> None:
    """Phase II: fine-tune the FC layer on cached features."""
    from finetune.options import idle_options
    from finetune.train import finetune as run

    with progress_bar() as progress:
        try:
            result = run(FinetuneConfig(**values), progress)
        except Interrupted:
            progress.stop()
            fail(GO_ON.format(values["out"]), INTERRUPTED)
    for name in idle_options(result.config, given(context)):
        what = f"{result.config['method']} with loss {result.config['loss']}"
        note(f"--{name.replace('_', '-')} changes nothing for {what}")
    if as_json:
        print_json(result.summary)
        return
    after, before = result.summary, result.summary["phase1"]
    names = ("overall", "many", "medium", "few")
    cells = [f"{n} {before[n]:.1f} → {after[n]:.1f}" for n in names if after[n] is not None]
    facts = result.config["facts"]
    looked = ", choices looked at the test set" if values["select_on"] == "test" else ""
    where = f", maps: {facts['residency']['kind']}" if facts.get("residency") else ""
    seconds = f"{facts['seconds']['total']:.1f} s"
    click.echo(f"{result.path}: {'  '.join(cells)}  ({seconds}{where}{looked})")


@main.command()
@options(SweepConfig, out="runs/sweep")
@json_option
def sweep(as_json: bool, **values: Any) -> None:
    """Many configurations and seeds of Phase II at once, ranked on the validation split."""
    from analysis.sweeps import rank_configurations, ranking_rows
    from finetune.sweep import sweep as run

    select_on, best = values["select_on"], 10
    with live_table() as (progress, show):

        def show_best(rows: Any) -> None:
            show(table(*ranking_rows(rank_configurations(rows, select_on), select_on, best)))

        try:
            result = run(build(SweepConfig, values), progress, show_best if show else None)
        except Interrupted:
            progress.stop()
            fail(GO_ON.format(values["out"]), INTERRUPTED)
    if result is None:  # another process prints
        return
    if as_json:
        print_json(result.ranking.to_dict("records"))
        return
    print_table(table(*ranking_rows(result.ranking, select_on, best)))
    ranked = "the validation split" if select_on == "val" else "THE TEST SET, which flatters"
    click.echo(f"accuracy in %, mean ± std over seeds; ranked on {ranked}")
    click.echo(f"  {result.path}/results.csv, results.parquet, ranking.csv")


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


main.add_command(store_group)


if __name__ == "__main__":
    main()
