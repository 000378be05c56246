"""Read a finished sweep: every head with its options and accuracies."""

import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pandas as pd

from analysis.accuracy import SCORES
from finetune.config import CONFUSING_CLASSES, FinetuneConfig
from finetune.methods.idle import draws
from finetune.methods.options import EARLIER
from finetune.sweep.folder import head_id
from finetune.sweep.marker import FORMAT, MARKER, split_ratio
from finetune.sweep.tables import ROW_COLUMNS
from finetune.sweep.taken import DONE, RESULTS
from store.errors import UserError
from store.notes import note

UNKNOWN_STORE = "STORE"  # placeholder in a command, for sweeps of older versions, which do not record it


@dataclass(frozen=True)
class FinishedSweep:
    """A sweep whose heads are all done.

    Attributes:
        path: its folder.
        store: identifies its store: digests by split, or version 0.1's single digest.
        select_on, rank_by: split and accuracy that it ranks by.
        shot_rule: what its shot groups mean.
        head_ratio: definition of head and tail; None if each head has its own.
        options: options of the sweep, as in sweep.json.
        configs: resolved options of each head, including those of the machine that trained it.
        results: one row per head, from results.csv; accuracies in %, NaN if it diverged.
        n_classes: K, or a lower bound if the sweep does not record it.
    """

    path: Path
    store: Any
    select_on: str
    rank_by: str
    shot_rule: str
    head_ratio: float | None
    options: dict[str, Any]
    configs: list[FinetuneConfig]
    results: pd.DataFrame
    n_classes: int


def is_sweep(path: Path) -> bool:
    """Whether a path is the folder of a sweep, finished or not."""
    return (path / MARKER).is_file()


def read_sweep(path: Path) -> FinishedSweep:
    """Read the folder of a finished sweep.

    Raises:
        UserError: it is not finished, or a file is damaged.
    """
    try:
        marker = json.loads((path / MARKER).read_text())
        options, made = EARLIER | marker["options"], marker.get("made", {})
        if marker["format"] != FORMAT or options["rank_by"] not in SCORES:
            raise ValueError("another format")
        results = _results(path, options["select_on"], options["rank_by"])
        n_classes = made.pop("n_classes", 1 + max(CONFUSING_CLASSES, int(results["confusing_classes"].max())))
        configs = [_config({"store": UNKNOWN_STORE} | made | row) for row in results.to_dict("records")]
        for config in configs:
            config.resolved(n_classes)
        configs, results = _each_once(path, configs, results)
        called = (options[name] for name in ("select_on", "rank_by", "shot_rule"))
        asked = (split_ratio(marker), marker["options"])
        return FinishedSweep(path, marker["store"], *called, *asked, configs, results, n_classes)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}: a file of this sweep is damaged ({error}); run the same `sweep` with --resume, or with "
            "--overwrite if that is refused"
        ) from error


def head_key(config: FinetuneConfig, head: str) -> str:
    """Identifies a head: its id, independent of the seed if nothing is drawn."""
    return head if draws(asdict(config)) else head_id(config)


def _each_once(
    path: Path, configs: list[FinetuneConfig], results: pd.DataFrame
) -> tuple[list[FinetuneConfig], pd.DataFrame]:
    """Drop duplicates: version 0.1 has a head per seed even for methods without random draws."""
    keys = pd.Series([head_key(*pair) for pair in zip(configs, results["head"], strict=True)])
    again = keys.duplicated()
    for method in results["method"][again].unique():
        note(f"{path}: {method} does not depend on the seed, so its heads of several seeds count as one")
    return [configs[i] for i in results.index[~again]], results[~again].reset_index(drop=True)


def _results(path: Path, select_on: str, rank_by: str) -> pd.DataFrame:
    """Read results.csv; UserError if the sweep is not finished, ValueError if the file is damaged."""
    file = path / RESULTS[0]
    if not file.is_file():
        n_done = sum(len(json.loads(done.read_text())) for done in (path / DONE).glob("*.json"))
        raise UserError(
            f"{path}: an interrupted sweep with {n_done} heads done; finish it with the same `sweep` and "
            "--resume, then analyze it"
        )
    results = pd.read_csv(file, dtype={"head": str})
    needed = ROW_COLUMNS | {"method", "loss", "seed", "confusing_classes"}
    if len(results) and results["diverged_at"].isna().any():
        needed |= {f"{select_on}_{SCORES[rank_by]}"}
    if missing := sorted(needed - set(results)):
        raise ValueError(f"{file.name} lacks {', '.join(missing)}")
    if not len(results):
        raise ValueError(f"{file.name} has no row")
    return results


def _config(row: dict[str, Any]) -> FinetuneConfig:
    """Options from a row of a table, where integers may have become floats and None is NaN."""
    hints = get_type_hints(FinetuneConfig)
    values = {}
    for field in fields(FinetuneConfig):
        value = row.get(field.name, EARLIER.get(field.name, field.default))
        if value is MISSING:
            raise ValueError(f"{field.name} is missing")
        absent = value is None or value != value
        values[field.name] = None if absent else _typed(value, hints[field.name])
    return FinetuneConfig(**values)


def _typed(value: Any, kind: Any) -> Any:
    kinds = get_args(kind) if get_origin(kind) not in (None, Literal) else (kind,)
    if int in kinds and isinstance(value, float) and value.is_integer():
        return int(value)
    words = [word for one in kinds if get_origin(one) is Literal for word in get_args(one)]
    if float in kinds and value not in words:  # numbers are text in a column that also has words
        return float(value)
    return value
