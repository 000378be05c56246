"""Compare several runs: tables, CSV files and figures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.accuracy import group_accuracies, per_class_frame
from analysis.confusion import confused_pairs, with_names
from analysis.shots import GROUPS
from analysis.tables import COLUMNS, PHASE_1, compare, name_configurations
from extract.options import check_shot_rule
from finetune.compare.analyze_sweeps import SweepAnalysis, analyze_sweeps, repeating
from finetune.compare.comparable import check_alike, check_distinct, note_repeated
from finetune.compare.config import AnalyzeConfig
from finetune.compare.configurations import all_options, phase1_options
from finetune.compare.figures import report_figures
from finetune.compare.files import write_report
from finetune.compare.finished_sweep import is_sweep
from finetune.compare.folder import TABLES, check_no_foreign_files
from finetune.compare.subsets import note_unlike_subsets, subset_seed
from finetune.run import Run, RunError, read_run
from finetune.sampling.head_tail import parts_of, ratio_in_words
from store.errors import check_utf8
from store.notes import note
from store.storage.lock import sole_writer

PHASES = {"phase1": "phase1_", "prediction": ""}  # columns of predictions, and prefixes of accuracies


@dataclass(frozen=True)
class Analysis:
    """Results of `analyze` for runs.

    Attributes:
        comparison: one row per configuration of Phase I and II, from `analysis.tables.compare`.
        runs: one row per run.
        per_class: one row per class: class_id, class_name, n_train, shot_group, and the mean accuracy of
            each configuration of Phase I and II.
        pairs: the most confused pairs of classes of each configuration, from `analysis.confusion`.
        n_classes: number of classes: overall, in each shot group, in head and tail.
        head_ratio, head_in_words: the first run's definition of head and tail, used for all.
        files: files that were written.
    """

    comparison: pd.DataFrame
    runs: pd.DataFrame
    per_class: pd.DataFrame
    pairs: pd.DataFrame
    n_classes: dict[str, int]
    head_ratio: float
    head_in_words: str
    files: list[Path]


def analyze(config: AnalyzeConfig) -> Analysis | SweepAnalysis:
    """Compare runs, or rank the configurations of sweeps; write tables, figures and analysis.json.

    Head and tail classes are the first run's, for all runs. Time and memory grow with the number of classes
    and test images, not with the pairs of classes.

    Raises:
        UserError: a folder is neither run nor sweep, the runs are of different images, a run is given twice,
            or the output folder holds files of the same names that are not ours.
    """
    check_shot_rule(config.shot_rule)
    check_utf8(config.out, *config.runs)
    paths = list(dict.fromkeys(Path(run).resolve() for run in config.runs))
    sweeps = [path for path in paths if is_sweep(path)]
    if sweeps and len(sweeps) < len(paths):
        raise _mixed(sweeps[0], next(path for path in paths if path not in sweeps))
    out = Path(config.out)
    with sole_writer(out, "analysis"):
        check_no_foreign_files(out)
        if not sweeps:
            if config.rank_by is not None:
                note("--rank-by changes nothing for runs; only sweeps are ranked")
            return _analyze_runs(config, paths)
        found = analyze_sweeps(sweeps, out, config.rank_by)
    if config.across_subsets:
        note("--across-subsets changes nothing for sweeps; those analyzed together are of one store")
    if config.shot_rule not in (AnalyzeConfig.shot_rule, found.shot_rule):
        note(f"--shot-rule {config.shot_rule} changes nothing: the sweep was run with {found.shot_rule}")
    return found


def _mixed(sweep: Path, run: Path) -> RunError:
    command = repeating(sweep)
    made = f"; run its best configuration with: {command}" if command else ""
    return RunError(
        f"{sweep}: a sweep keeps no predictions and cannot be compared with {run}; analyze them separately"
        f"{made}"
    )


def measure_runs(
    runs: list[Run], shot_rule: str, across_subsets: bool = False
) -> tuple[pd.DataFrame, list[dict[str, pd.DataFrame]]]:
    """Check that runs are comparable, and compute their accuracies.

    Args:
        runs: the runs.
        shot_rule: what Many, Medium and Few mean.
        across_subsets: whether they may be of several long-tailed subsets of one source; each row then has
            its `subset_seed`.

    Returns:
        One row per run, for `analysis.tables.compare`; and per run the per-class frames of Phase I and of its
        head, keyed by column of predictions.csv.

    Raises:
        RunError: the runs are of different images, or a run is given twice.
    """
    check_alike(runs, across_subsets)
    names = name_configurations([all_options(run) for run in runs])
    check_distinct(runs, names)
    note_repeated(runs, names)
    phase1_names = name_configurations([{"method": PHASE_1} | phase1_options(run) for run in runs])
    measured = [_frames(run, shot_rule) for run in runs]
    facts = runs[0].config["facts"]
    table = pd.DataFrame(
        [
            {"configuration": name, "phase1_configuration": phase1_name} | _run_row(run, frames, facts)
            for run, frames, name, phase1_name in zip(runs, measured, names, phase1_names, strict=True)
        ]
    )
    if across_subsets:
        table.insert(table.columns.get_loc("seed") + 1, "subset_seed", [subset_seed(run) for run in runs])
        note_unlike_subsets(names, runs)
    return table, measured


def _analyze_runs(config: AnalyzeConfig, paths: list[Path]) -> Analysis:
    runs = [read_run(path) for path in paths]
    table, measured = measure_runs(runs, config.shot_rule, config.across_subsets)
    facts, phase1_names = runs[0].config["facts"], table["phase1_configuration"]
    per_class, changes = _per_class(measured, table)
    n_classes = {group: int((per_class["shot_group"] == group).sum()) for group in GROUPS}
    n_classes |= {"overall": len(per_class)} | {part: len(ids) for part, ids in parts_of(facts).items()}
    comparison = compare(table)
    members = {name: [runs[i] for i in rows] for name, rows in _members(table).items()}
    pairs = [_pairs(name, of_one, per_class["class_name"]) for name, of_one in members.items()]
    drawn = report_figures(members, per_class, changes, list(dict.fromkeys(phase1_names)), pairs[0])
    of_changes = changes.rename(columns=lambda name: f"change, {name}")
    tables = (comparison, table, per_class.join(of_changes), pd.concat(pairs))
    head_ratio = runs[0].config["head_ratio"]
    content = {"comparison": comparison.to_dict("records"), "n_classes": n_classes, "head_ratio": head_ratio}
    frames = dict(zip(TABLES, tables, strict=True))
    files = write_report(Path(config.out), content, frames, drawn)
    return Analysis(*tables, n_classes, head_ratio, _head_in_words(runs), files)


def _head_in_words(runs: list[Run]) -> str:
    """What "head" means: the first run's definition; with a note if other runs differ."""
    first = runs[0].config["head_ratio"]
    others = [run for run in runs if run.config["head_ratio"] != first]
    if others:
        note(
            f"head and tail are those of {runs[0].name} (--head-ratio {first:g}) for all runs; "
            f"{others[0].name} has --head-ratio {others[0].config['head_ratio']:g}"
        )
    return ratio_in_words(first) + (f", as in {runs[0].name}" if others else "")


def _frames(run: Run, rule: str) -> dict[str, pd.DataFrame]:
    """Per-class frames of a run's Phase I and of its head."""
    label, names = run.predictions["label"].to_numpy(), run.per_class["class_name"].tolist()
    counts = run.per_class["n_train"].to_numpy()
    return {
        column: per_class_frame(label, run.predictions[column].to_numpy(), names, counts, rule)
        for column in PHASES
    }


def _run_row(run: Run, frames: dict[str, pd.DataFrame], facts: dict[str, Any]) -> dict[str, Any]:
    row = {"run": run.name, "seed": run.config["seed"], "phase1": run.phase1_digest}
    for column, prefix in reversed(PHASES.items()):
        values = group_accuracies(frames[column], parts_of(facts))
        row |= {prefix + name: values[name] for name in COLUMNS}
    return row


def _members(table: pd.DataFrame) -> dict[str, list[int]]:
    return {name: list(rows.index) for name, rows in table.groupby("configuration", sort=False)}


def _per_class(
    measured: list[dict[str, pd.DataFrame]], table: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean accuracies by class and configuration, and the mean change of runs from their own Phase I."""
    frame = measured[0]["phase1"][["class_id", "class_name", "n_train", "shot_group"]]
    networks = table.drop_duplicates(["phase1", "phase1_configuration"]).groupby(
        "phase1_configuration", sort=False
    )
    columns = {name: _mean([measured[i]["phase1"] for i in rows.index]) for name, rows in networks}
    changes = {}
    for name, rows in _members(table).items():
        columns[name] = _mean([measured[i]["prediction"] for i in rows])
        changes[name] = columns[name] - _mean([measured[i]["phase1"] for i in rows])
    return frame.assign(**columns), pd.DataFrame(changes)


def _mean(frames: list[pd.DataFrame]) -> np.ndarray:
    return np.mean([frame["accuracy"] for frame in frames], axis=0)


def _pairs(name: str, runs: list[Run], class_names: pd.Series) -> pd.DataFrame:
    label = runs[0].predictions["label"].to_numpy()
    before, after = ([run.predictions[column].to_numpy() for run in runs] for column in PHASES)
    return with_names(confused_pairs(label, before, after, len(class_names)), class_names, name)
