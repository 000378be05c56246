"""Sweeps read back, their configurations ranked together: tables, CSV files and a figure."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.accuracy import SCORES, in_words
from analysis.sweep_figure import options_figure
from analysis.sweeps import rank_configurations
from analysis.tables import name_configurations
from finetune.config import FinetuneConfig
from finetune.finished_sweep import UNKNOWN_STORE, FinishedSweep, read_sweep
from finetune.options import effective_options
from finetune.repeat import finetune_command, free_folder
from finetune.report_files import write_report
from store.errors import UserError
from store.notes import note

FILES = ("ranking.csv", "results.csv", "options.png")


@dataclass(frozen=True)
class SweepAnalysis:
    """What `analyze` found in sweeps.

    Attributes:
        ranking: a row a configuration, best first, from `analysis.sweeps.rank_configurations`.
        results: a row a head.
        select_on, rank_by, shot_rule: what is ranked by, and what the groups mean.
        command: the `finetune` command that repeats the best; None where heads of every one diverged.
        files: what was written.
    """

    ranking: pd.DataFrame
    results: pd.DataFrame
    select_on: str
    rank_by: str
    shot_rule: str
    command: str | None
    files: list[Path]


def analyze_sweeps(paths: list[Path], out: Path, stale: tuple[str, ...]) -> SweepAnalysis:
    """Rank the configurations of one or more sweeps of a store; write two tables and a figure.

    A sweep keeps no predictions, so there is nothing by class: the command that is found makes a run of the
    best configuration, which has all that.

    Args:
        paths: folders of sweeps.
        out: folder of the report.
        stale: files of other reports, to be removed from it.

    Raises:
        UserError: a sweep is interrupted or damaged, or they are not alike.
    """
    sweeps = [read_sweep(path) for path in paths]
    first = sweeps[0]
    _refuse_unlike(sweeps)
    results = pd.concat([one.results.assign(sweep=str(one.path)) for one in sweeps], ignore_index=True)
    configs = [config for one in sweeps for config in one.configs]
    kept = results.index[~results["head"].duplicated()]  # a head of two sweeps is one
    configs, results = [configs[i] for i in kept], results.loc[kept].reset_index(drop=True)
    effective = [effective_options(asdict(config)) for config in configs]
    results["configuration"] = name_configurations(effective)
    ranking = rank_configurations(results, first.select_on, first.rank_by)
    command = None
    if not ranking["diverged"][0]:
        place = results.index[results["configuration"] == ranking["configuration"][0]][0]
        command = _command(configs[place], sweeps)
    figures = _figures(results, effective, ranking)
    content = {"ranking": ranking.to_dict("records"), "command": command}
    files = write_report(out, content, {"ranking": ranking, "results": results}, figures, (*FILES, *stale))
    if command is not None and configs[place].store == UNKNOWN_STORE:
        note(f"{first.path}: an earlier program's sweep does not say where its store is; put it for STORE")
    ways = (first.select_on, first.rank_by, first.shot_rule)
    return SweepAnalysis(ranking, results, *ways, command, files)


def repeating(path: Path) -> str | None:
    """The command that repeats the best configuration of one sweep.

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


def _refuse_unlike(sweeps: list[FinishedSweep]) -> None:
    first = sweeps[0]
    for one in sweeps[1:]:
        if type(one.store) is not type(first.store):
            old = one if isinstance(one.store, str) else first
            raise UserError(
                f"{old.path}: is version 0.1's, which recorded its store otherwise; run the same `sweep` "
                "with --resume, which trains nothing again, and analyze it then"
            )
        if one.store != first.store:
            raise UserError(
                f"{one.path}: is a sweep of another store than {first.path}; analyze the sweeps of one store "
                "at a time"
            )
        for name in ("select_on", "rank_by", "shot_rule"):
            here, there = getattr(one, name), getattr(first, name)
            if here != there:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(
                    f"{one.path}: was made with {flag} {here}, and {first.path} with {flag} {there}, so "
                    "their numbers do not compare; analyze them apart"
                )


def _figures(results: pd.DataFrame, effective: list[dict[str, Any]], ranking: pd.DataFrame) -> dict[str, Any]:
    """A figure of the options in which configurations differ; none where there is nothing to draw."""
    of_name = dict(zip(results["configuration"], effective, strict=True))
    options = pd.DataFrame([of_name[name] for name in ranking["configuration"]], dtype=object)
    options = options.where(options.notna(), None)
    varied = [name for name in options if options[name].map(repr).nunique() > 1]
    select_on, score = ranking["select_on"][0], SCORES[ranking["rank_by"][0]]
    column = f"{select_on}_{score}"
    if not varied or ranking[f"{column}_mean"].isna().all():
        return {}
    scores = [f"{column}_mean", f"{column}_std"]
    called = f"{in_words(column)} accuracy, %".replace("val", "validation", 1)
    return {"options": options_figure(options.join(ranking[scores]), varied, column, called)}
