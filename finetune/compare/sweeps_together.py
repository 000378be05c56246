"""Heads of several sweeps in one table: which sweeps are comparable, and which accuracies all have."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import pandas as pd

from analysis.accuracy import MEASURES, PARTS, SCORES
from analysis.sweeps import SPLITS
from finetune.compare.finished_sweep import FinishedSweep, head_key
from finetune.config import FinetuneConfig
from finetune.methods.options import FOLD_OPTIONS
from store.errors import UserError
from store.notes import note
from store.options import flag


def check_alike(sweeps: list[FinishedSweep], rank_by: str | None) -> None:
    """Raise UserError for sweeps of different stores, or whose numbers mean different things.

    Args:
        sweeps: the sweeps.
        rank_by: accuracy to rank by; None for the sweeps' own.
    """
    first = sweeps[0]
    for one in sweeps[1:]:
        if type(one.store) is not type(first.store):
            old = one if isinstance(one.store, str) else first
            raise UserError(
                f"{old.path}: is of version 0.1, which recorded its store in another way; run the same "
                "`sweep` with --resume, which trains nothing again, then analyze it"
            )
        if one.store != first.store:
            raise UserError(
                f"{one.path}: a sweep of another store than {first.path}; analyze sweeps of one store at a "
                "time"
            )
        for name in ("select_on", *FOLD_OPTIONS, "shot_rule", *(("rank_by",) if rank_by is None else ())):
            here, there = _way(one, name), _way(first, name)
            if here != there:
                way_out = ", or pass --rank-by" if name == "rank_by" else ""
                raise UserError(
                    f"{one.path}: was run with {flag(name)} {here}, but {first.path} with {flag(name)} "
                    f"{there}, so their numbers are not comparable; analyze them separately{way_out}"
                )


def _way(sweep: FinishedSweep, name: str) -> Any:
    """The value of an option that gives a sweep's numbers their meaning; None for one without effect."""
    if name in FOLD_OPTIONS:
        return getattr(sweep.configs[0], name) if sweep.select_on == "cv" else None
    return getattr(sweep, name)


def check_accuracy_known(sweeps: list[FinishedSweep], select_on: str, rank_by: str) -> None:
    """Raise UserError if heads lack the accuracy to rank by."""
    for one in sweeps:
        if f"{select_on}_{SCORES[rank_by]}" not in one.results and one.results["diverged_at"].isna().any():
            others = " or ".join(f"--rank-by {name}" for name in SCORES if name != rank_by)
            raise UserError(
                f"{one.path}: heads of an older version have no {rank_by} accuracy to rank by; use {others}"
            )


def together(sweeps: list[FinishedSweep]) -> tuple[pd.DataFrame, list[FinetuneConfig]]:
    """Every head of the sweeps once: one row each, and the resolved options of each.

    An accuracy that some sweeps lack, or compute over other classes, is left out for all, with a note: its
    mean would be over fewer heads than counted, or would mix different things.
    """
    options = [f.name for f in fields(FinetuneConfig) if any(f.name in one.results for one in sweeps)]
    frames = []
    for one in sweeps:
        lacking = [name for name in options if name not in one.results]
        of_configs = {name: [getattr(config, name) for config in one.configs] for name in lacking}
        frames.append(one.results.assign(**of_configs, sweep=str(one.path)))
    results = pd.concat(frames, ignore_index=True).drop(columns=sorted(_left_out(sweeps)))
    configs = [config for one in sweeps for config in one.configs]
    keys = pd.Series([head_key(*pair) for pair in zip(configs, results["head"], strict=True)])
    kept = results.index[~keys.duplicated()]
    return results.loc[kept].reset_index(drop=True), [configs[i] for i in kept]


def _left_out(sweeps: list[FinishedSweep]) -> set[str]:
    """Accuracies that are left out."""
    every = {f"{split}_{measure}" for split in SPLITS for measure in MEASURES}
    of_each = {
        one.path: every & set(one.results) for one in sweeps if one.results["diverged_at"].isna().any()
    }
    found = set().union(*of_each.values())
    left_out = found - set.intersection(every, *of_each.values())
    if left_out:
        lacking = next(path for path, names in of_each.items() if left_out - names)
        note(f"{lacking}: lacks {_listed(left_out)}, left out for all")
    ratios = {one.head_ratio: one.path for one in sweeps}
    of_parts = {f"{split}_{part}" for split in SPLITS for part in PARTS} & found
    if len(ratios) > 1 and of_parts - left_out:
        called = " and ".join("each head's own" if ratio is None else f"{ratio:g}" for ratio in ratios)
        note(f"head and tail differ between these sweeps (--head-ratio {called}), left out for all")
        left_out |= of_parts
    return left_out


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(sorted(columns))
