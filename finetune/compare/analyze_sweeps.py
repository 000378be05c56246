"""Rank the configurations of one or more sweeps: tables, CSV files and a figure."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.accuracy import SCORES, in_words
from analysis.figures.sweep import options_figure
from analysis.sweeps import rank_configurations
from analysis.tables import name_configurations
from finetune.compare.files import write_report
from finetune.compare.finished_sweep import UNKNOWN_STORE, FinishedSweep, read_sweep
from finetune.compare.sweeps_together import check_accuracy_known, check_alike, together
from finetune.config import FinetuneConfig
from finetune.methods.options import effective_options
from finetune.sampling.head_tail import ratio_in_words
from finetune.sweep.config import FIXED
from finetune.sweep.marker import UNRECORDED, varied_options
from finetune.sweep.repeat import finetune_command, free_folder
from store.notes import note


@dataclass(frozen=True)
class SweepAnalysis:
    """Results of `analyze` for sweeps.

    Attributes:
        ranking: one row per configuration, best first, from `analysis.sweeps.rank_configurations`.
        results: one row per head.
        select_on, rank_by: split and accuracy that the ranking is by.
        shot_rule: what the shot groups mean.
        head_in_words: what "head" means.
        command: `finetune` command that repeats the best; None if every configuration has a diverged head.
        files: files that were written.
    """

    ranking: pd.DataFrame
    results: pd.DataFrame
    select_on: str
    rank_by: str
    shot_rule: str
    head_in_words: str
    command: str | None
    files: list[Path]


def analyze_sweeps(paths: list[Path], out: Path, rank_by: str | None = None) -> SweepAnalysis:
    """Rank the configurations of one or more sweeps of a store; write two tables and a figure.

    Sweeps keep no predictions, so there are no per-class results; the returned command runs the best
    configuration again, with all of them.

    Args:
        paths: folders of sweeps.
        out: folder for the report.
        rank_by: accuracy to rank by; the sweeps' own if None.

    Raises:
        UserError: a sweep is interrupted or damaged, they are not comparable, or lack the accuracy to rank
            by.
    """
    sweeps = [read_sweep(path) for path in paths]
    first = sweeps[0]
    check_alike(sweeps, rank_by)
    rank_by = first.rank_by if rank_by is None else rank_by
    check_accuracy_known(sweeps, first.select_on, rank_by)
    results, configs = together(sweeps)
    results["configuration"] = name_configurations([effective_options(asdict(one)) for one in configs])
    ranking = rank_configurations(results, first.select_on, rank_by)
    command = None
    if not ranking["diverged"][0]:
        place = results.index[results["configuration"] == ranking["configuration"][0]][0]
        command = _command(configs[place], sweeps)
    figures = _figures(sweeps, results, configs, ranking)
    content = {"ranking": ranking.to_dict("records"), "command": command}
    files = write_report(out, content, {"ranking": ranking, "results": results}, figures)
    if command is not None and configs[place].store == UNKNOWN_STORE:
        note(f"{first.path}: an older version did not record the store; replace STORE by its path")
    head_in_words = ratio_in_words(first.head_ratio) if "test_head" in results else "head: left out"
    ways = (first.select_on, rank_by, first.shot_rule, head_in_words)
    return SweepAnalysis(ranking, results, *ways, command, files)


def repeating(path: Path) -> str | None:
    """The command that repeats the best configuration of a sweep; None if each has a diverged head.

    Raises:
        UserError: the sweep is interrupted or damaged.
    """
    found = read_sweep(path)
    ranking = rank_configurations(found.results, found.select_on, found.rank_by)
    if ranking["diverged"][0]:
        return None
    place = found.results.index[found.results["configuration"] == ranking["configuration"][0]][0]
    return _command(found.configs[place], [found])


def _command(config: FinetuneConfig, sweeps: list[FinishedSweep]) -> str:
    n_classes = max(one.n_classes for one in sweeps)
    return finetune_command(config, free_folder(sweeps[0].path, "best"), n_classes)


def _figures(
    sweeps: list[FinishedSweep], results: pd.DataFrame, configs: list[FinetuneConfig], ranking: pd.DataFrame
) -> dict[str, Any]:
    """The figure of varied options; empty if there is nothing to draw."""
    of_name = dict(zip(results["configuration"], configs, strict=True))
    drawn = [_shown_options(of_name[name]) for name in ranking["configuration"]]
    names = varied_in(sweeps)
    options = pd.DataFrame([{name: one.get(name) for name in names} for one in drawn], dtype=object)
    options = options.where(options.notna(), None)
    varied = [name for name in names if options[name].map(repr).nunique() > 1]
    select_on, score = ranking["select_on"][0], SCORES[ranking["rank_by"][0]]
    column = f"{select_on}_{score}"
    if not varied or ranking[f"{column}_mean"].isna().all():
        return {}
    scores = [f"{column}_mean", f"{column}_std"]
    words = {"val": "validation", "cv": "cross-validation", "test": "test"}
    called = f"{in_words(column)} accuracy, %".replace(select_on, words[select_on], 1)
    return {"options": options_figure(options.join(ranking[scores]), varied, column, called)}


def varied_in(sweeps: list[FinishedSweep]) -> list[str]:
    """Options varied by grids and ranges, then other options that differ between the sweeps."""
    names = dict.fromkeys(name for one in sweeps for name in varied_options(one.options))
    own = [name for name in FinetuneConfig.__dataclass_fields__ if name not in FIXED]
    asked = [UNRECORDED | one.options for one in sweeps]
    return [*names, *(n for n in own if n not in names and len({repr(one.get(n)) for one in asked}) > 1)]


def _shown_options(config: FinetuneConfig) -> dict[str, Any]:
    """Options that a head depends on, and its tail samples, which determine its batch size."""
    found = effective_options(asdict(config))
    return found | ({"tail_samples": config.tail_samples} if "batch_size" in found else {})
