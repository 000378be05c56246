"""The command line. Every command turns its options into a frozen config, makes one call, and prints.

Nothing heavy is imported before a command runs. An error that the user can fix is one line on stderr and
exit code 2; progress bars are shown only on a terminal.
"""

from pathlib import Path
from typing import Any

import click

from extract.config import EvaluateConfig, ExtractConfig, TrainConfig
from extract.parts.options import part_of
from extract.torchrun.environment import is_first_process
from finetune.commands import early
from finetune.commands.advice import joining_command, resumable
from finetune.commands.check_data import checks_data
from finetune.commands.console import (
    Program,
    live_table,
    print_json,
    progress_bar,
    say,
    table,
)
from finetune.commands.deploy import export, predict
from finetune.commands.options import PLACE, build, given, json_option, options
from finetune.commands.results import (
    accuracy_cells,
    contest_table,
    print_analysis,
    print_contest,
    print_ranking,
    print_swept,
)
from finetune.commands.store import store_group
from finetune.compare.config import AnalyzeConfig
from finetune.config import FinetuneConfig
from finetune.contest.config import ContestConfig
from finetune.demo import DemoConfig
from finetune.sweep.config import SweepConfig
from store.names import shown
from store.notes import note

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Program, context_settings=SETTINGS)
@click.version_option(package_name="tailcache", prog_name="tailcache", help="print the version")
@click.pass_context
def main(context: click.Context) -> None:
    """Feature caches for long-tailed image classification.

    Train once, extract feature maps once, then fine-tune the classifier in seconds.
    """
    early.check_processes(context.invoked_subcommand)


@main.command()
@options(TrainConfig)
@click.pass_context
@checks_data(TrainConfig)
def train(context: click.Context, **values: Any) -> None:
    """Phase I: train a network on all classes."""
    early.check_training(build(TrainConfig, values))
    from analysis.accuracy import in_words
    from extract.data_notes import note_skipped
    from extract.train import train as run
    from extract.training.interrupted.resume import resumed_config

    named = given(context)
    config = resumed_config(values["out"], named) if values["resume"] else build(TrainConfig, values)
    with resumable(context, "out"), progress_bar() as progress:
        checkpoint = run(config, progress)
    if not is_first_process():
        return
    last = checkpoint.history[-1]
    scores = {
        k: f"{k.removesuffix('_accuracy').replace('_', ' ')} {v:.1f}"
        for k, v in last.items()
        if k.endswith("_accuracy")
    }
    scores |= {k: f"{in_words(k)} (class mean) {last[k]:.1f}" for k in scores if "balanced" in k}
    accuracy = ", ".join(scores.values())
    epochs = "1 epoch" if checkpoint.epoch == 1 else f"{checkpoint.epoch} epochs"
    counts = checkpoint.class_counts
    say(f"{len(counts)} classes of {max(counts)} to {min(counts)} training images")
    say(f"{config.out}/checkpoint.pt: {epochs}, accuracy in %: {accuracy}")
    note_skipped(checkpoint.dataset["skipped"], config.out)


@main.command()
@options(ExtractConfig)
@click.pass_context
@checks_data(ExtractConfig)
def extract(context: click.Context, **values: Any) -> None:
    """Run every image through the network once and cache what Phase II needs."""
    config = build(ExtractConfig, values)
    early.check_extraction(config)
    from extract.dump import extract as run

    with resumable(context), progress_bar() as progress:
        shapes = run(config, progress)
    if config.part is not None and not shapes:
        join = joining_command(context, config.store)
        say(f"{config.store}: part {part_of(config)} is written; when all are, run: {join}")
    for split, shape in shapes.items():
        what = "feature maps (N, H, W, C)" if len(shape) == 4 else "pooled features (N, C)"
        n_views = config.views if split.split("/")[0] == "train" else 1
        views = f", {n_views} views of each of {shape[0] // n_views:,} images" if n_views > 1 else ""
        say(f"{config.store}/{split}: {what} {shape}{views}")


@main.command()
@options(FinetuneConfig)
@json_option
@click.pass_context
def finetune(context: click.Context, as_json: bool, **values: Any) -> None:
    """Phase II: fine-tune the FC layer on cached features."""
    early.check_finetuning(FinetuneConfig(**values))
    from finetune.train import finetune as run
    from finetune.training.run_notes import notes_on_run

    with resumable(context), progress_bar() as progress:
        result = run(FinetuneConfig(**values), progress, given(context))
    for message in notes_on_run(result.config, given(context)):
        note(message)
    if as_json:
        print_json(result.summary)
        return
    cells = accuracy_cells(result.summary, result.summary["phase1"])
    facts = result.config["facts"]
    on_test = ", chosen on the test set" if values["select_on"] == "test" else ""
    where = f", maps: {facts['residency']['kind']}" if facts.get("residency") else ""
    seconds = f"{facts['seconds']['total']:.1f} s"
    say(f"{result.path}: {'  '.join(cells)}  ({seconds}{where}{on_test})")
    if (in_folds := result.summary.get("cv")) is not None:
        say(f"  held-out folds: {'  '.join(accuracy_cells(in_folds, in_folds['phase1']))}")


@main.command()
@options(SweepConfig, out="runs/sweep")
@json_option
@click.pass_context
def sweep(context: click.Context, as_json: bool, **values: Any) -> None:
    """Run many configurations and seeds of Phase II at once, ranked on the validation split."""
    early.check_sweep(build(SweepConfig, values))
    from analysis.sweeps import ranking_rows
    from analysis.tables import without_nan
    from finetune.methods.idle import idle_in_sweep, idle_in_words
    from finetune.sweep.sweep import sweep as run

    best = 10
    with resumable(context), live_table() as (progress, show):

        def show_best(ranking: Any) -> None:
            show(table(*ranking_rows(ranking, best)))

        result = run(build(SweepConfig, values), progress, show_best if show else None, given(context))
    if result is None:  # under torchrun, the first process prints
        return
    heads = [values | head for head in without_nan(result.results.to_dict("records"))]
    for name in idle_in_sweep(heads, given(context)):
        note(idle_in_words(name, heads))
    if as_json:
        rows = result.ranking.to_dict("records")
        rows[0]["command"] = result.command
        print_json(rows)
        return
    print_ranking(result, values["shot_rule"], best)
    say(f"  {result.path}/results.csv, results.parquet, ranking.csv")
    if result.command is not None:
        say("to run the best again:", f"  {result.command}")


@main.command()
@options(ContestConfig)
@json_option
@click.pass_context
def contest(context: click.Context, as_json: bool, **values: Any) -> None:
    """Try every method of Phase II with its grid, rank them on validation images, run the winner."""
    config = build(ContestConfig, values)
    early.check_contest(config)
    from finetune.contest.contest import contest as run

    with resumable(context), live_table() as (progress, show):

        def show_best(standings: Any) -> None:
            show(contest_table(standings, config))

        found = run(config, progress, show_best if show else None)
    if found is None:  # under torchrun, the first process prints
        return
    if as_json:
        print_json(found.table.to_dict("records"))
        return
    print_contest(found, config)


@main.command()
@options(EvaluateConfig)
@json_option
def evaluate(as_json: bool, **values: Any) -> None:
    """Run a checkpoint's network on images and report its accuracy."""
    early.check_evaluation(EvaluateConfig(**values))
    from analysis.accuracy import LEGEND
    from analysis.shots import rule_in_words
    from extract.evaluate import evaluate as run
    from extract.evaluate import summary_of
    from finetune.sampling.head_tail import ratio_in_words

    with progress_bar() as progress:
        frame = run(EvaluateConfig(**values), progress)
    if not is_first_process():
        return
    summary = summary_of(frame, values["shot_rule"])
    if as_json:
        print_json(summary | {"per_class": frame.to_dict("records")})
        return
    if len(frame) <= 100:
        frame["class_name"] = frame["class_name"].map(shown)
        say(*frame.to_string(index=False, float_format="%.1f").splitlines())
    counts = f"{summary['n_correct']} of {summary['n_test']} correct"
    say(f"{counts}: {'  '.join(accuracy_cells(summary))}")
    if "aggregated" in summary:
        say(f"aggregated over four turns of each image: {'  '.join(accuracy_cells(summary['aggregated']))}")
    head = ratio_in_words(summary["head_ratio"])
    say(LEGEND, f"{rule_in_words(values['shot_rule'])}; {head}")


@main.command()
@click.argument("runs", nargs=-1, required=True, type=PLACE)
@options(AnalyzeConfig)
@json_option
def analyze(as_json: bool, **values: Any) -> None:
    """Compare runs, or rank the configurations of sweeps: tables, CSV files and figures."""
    early.check_analysis(AnalyzeConfig(**values))
    from finetune.compare.analyze import analyze as run
    from finetune.compare.analyze_sweeps import SweepAnalysis

    analysis = run(AnalyzeConfig(**values))
    files = [str(path) for path in analysis.files]
    if isinstance(analysis, SweepAnalysis):
        if as_json:
            ranking = analysis.ranking.to_dict("records")
            print_json({"ranking": ranking, "command": analysis.command, "files": files})
            return
        print_swept(analysis)
        return
    if as_json:
        comparison = analysis.comparison.to_dict("records")
        ratio = {"n_classes": analysis.n_classes, "head_ratio": analysis.head_ratio}
        print_json({"comparison": comparison} | ratio | {"files": files})
        return
    print_analysis(analysis, values["shot_rule"])


main.add_command(predict)
main.add_command(export)


@main.command()
@options(DemoConfig)
def demo(out: str, device: str) -> None:
    """Run all phases on a long-tailed version of scikit-learn's digits: a minute or two on two cores."""
    early.check_demo(DemoConfig(out, device))
    from extract.dump import extract as run_extract
    from extract.train import train as run_train
    from finetune.compare.analyze import analyze as run_analyze
    from finetune.demo import SEEDS, plan_demo
    from finetune.train import finetune as run_finetune
    from store.storage.lock import sole_writer

    runs = []
    with sole_writer(Path(out), "demo"), progress_bar() as progress:
        for seed in SEEDS:
            phases = plan_demo(out, seed, device)
            say(f"seed {seed}: train, extract, {', '.join(run.method for run in phases.finetune)}")
            run_train(phases.train, progress)
            run_extract(phases.extract, progress)
            runs += [run_finetune(config, progress) for config in phases.finetune]
    runs.sort(key=lambda run: run.config["method"] != "fsa")
    config = AnalyzeConfig(tuple(str(run.path) for run in runs), f"{out}/report")
    print_analysis(run_analyze(config), config.shot_rule)


main.add_command(store_group)


if __name__ == "__main__":
    main()
