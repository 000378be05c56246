"""sweep.json: the options of a sweep, and whether a command has the same ones."""

import json
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from analysis.options import PLACES, WAYS
from finetune.config import FinetuneConfig
from finetune.methods.options import EARLIER
from finetune.sweep.config import SweepConfig, name_of
from finetune.sweep.studies import grids_of
from store.notes import note

FORMAT = "tailcache-sweep"
MARKER = "sweep.json"
WHERE = PLACES | WAYS  # options that do not affect a head
VARIED = ("grid", "study", "range", "random", "seeds", "heads")
# Options that older sweeps do not record.
UNRECORDED = EARLIER | {"max_norm_every": None, "study": None}
FORMER = {"method": "fsa", "tau": 1.0}  # what older sweeps record where the user named nothing


def options_of(config: SweepConfig) -> dict[str, Any]:
    """Options of a sweep, as in sweep.json."""
    own = {k: v for k, v in asdict(config.base).items() if k not in WHERE}
    if config.base.select_on != "cv":  # then they have no effect, and keep nothing apart
        own |= {name: UNRECORDED[name] for name in ("folds", "fold_seed")}
    return json.loads(json.dumps(own | {name: getattr(config, name) for name in VARIED}))


def read_marker(path: Path) -> dict[str, Any] | None:
    """The content of a folder's sweep.json that identifies the sweep; None if missing or damaged."""
    try:
        content = json.loads((path / MARKER).read_text())
        content.pop("made", None)
        ours = content["format"] == FORMAT and isinstance(content["options"], dict) and content["store"]
        return content if ours else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_made(path: Path) -> dict[str, Any]:
    """The part of sweep.json that does not identify the sweep; empty if missing or damaged."""
    try:
        made = json.loads((path / MARKER).read_text())["made"]
        return made if isinstance(made, dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def differing_option(recorded: dict[str, Any], asked: dict[str, Any], is_ranking_bound: bool) -> str | None:
    """The first option of a command that differs from sweep.json; None if none does.

    Args:
        recorded: options in sweep.json.
        asked: options of the command.
        is_ranking_bound: whether heads depend on --rank-by; if not, a sweep can be ranked again by another.
    """
    recorded = UNRECORDED | recorded
    for name in {**asked, **recorded}:
        if recorded.get(name) != asked.get(name) and (name != "rank_by" or is_ranking_bound):
            return name
    return None


def as_interrupted(config: SweepConfig, named: Collection[str] = ()) -> SweepConfig:
    """The config, but with defaults and ranking rule of the sweep that is resumed, if it has former ones.

    Args:
        config: config of the command.
        named: names of the options that the user gave, which stay.
    """
    path = Path(config.base.out)
    found = read_marker(path) if config.base.resume else None
    if found is None:
        return config
    config = _with_former(config, found, named)
    if "rank_by" in found["options"] or "rank_by" in named:
        return config
    if config.base.rank_by != UNRECORDED["rank_by"]:
        note(
            f"{path}: an older version started this sweep; it is still ranked by overall accuracy, and "
            "balanced accuracy is left out if heads finished by that version lack it"
        )
    return as_recorded(config, found, named)


def as_recorded(config: SweepConfig, found: dict[str, Any], named: Collection[str] = ()) -> SweepConfig:
    """The config, with former defaults, and the ranking rule of version 0.1, if sweep.json has them."""
    config = _with_former(config, found, named)
    rank_by = config.base.rank_by if "rank_by" in found["options"] else UNRECORDED["rank_by"]
    return replace(config, base=replace(config.base, rank_by=rank_by))


def _with_former(config: SweepConfig, found: dict[str, Any], named: Collection[str] = ()) -> SweepConfig:
    """The config, with former defaults of options that the user did not name, if sweep.json records them."""
    today = {name: getattr(FinetuneConfig, name) for name in FORMER}
    former = {
        name: value
        for name, value in FORMER.items()
        if name not in named and getattr(config.base, name) == today[name]
        if found["options"].get(name) == value
    }
    return replace(config, base=replace(config.base, **former))


def varied_options(options: dict[str, Any]) -> list[str]:
    """Names of the options that a sweep varies."""
    given = [text for name in ("grid", "range") for text in options.get(name) or ()]
    return [name_of(text) for text in (*grids_of(options.get("study")), *given)]


def split_ratio(found: dict[str, Any]) -> float | None:
    """The `head_ratio` that all heads of a sweep report head and tail accuracy by.

    None if an older version varied it and each head reports by its own.
    """
    options = found["options"]
    of_each = "head_ratio" in varied_options(options) and not found.get("one_split")
    return None if of_each else options["head_ratio"]
