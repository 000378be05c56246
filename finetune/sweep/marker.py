"""sweep.json: what was asked of a sweep, and whether a command asks for the same."""

import json
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from analysis.options import PLACES, WAYS
from finetune.sweep.config import SweepConfig, name_of
from store.notes import note

FORMAT = "tailcache-sweep"
MARKER = "sweep.json"
WHERE = PLACES | WAYS  # tell no two heads apart
VARIED = ("grid", "range", "random", "seeds", "heads")
UNTOLD = {"rank_by": "overall", "max_norm_every": None}  # what a sweep asked that does not say, being older


def options_of(config: SweepConfig) -> dict[str, Any]:
    """What a sweep is asked, as JSON has it."""
    own = {k: v for k, v in asdict(config.base).items() if k not in WHERE}
    return json.loads(json.dumps(own | {name: getattr(config, name) for name in VARIED}))


def read_marker(path: Path) -> dict[str, Any] | None:
    """What tells the sweep in a folder; None where there is none, or it is damaged."""
    try:
        content = json.loads((path / MARKER).read_text())
        content.pop("made", None)
        ours = content["format"] == FORMAT and isinstance(content["options"], dict) and content["store"]
        return content if ours else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_made(path: Path) -> dict[str, Any]:
    """What sweep.json says that tells no sweeps apart; empty where it does not."""
    try:
        made = json.loads((path / MARKER).read_text())["made"]
        return made if isinstance(made, dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def differing_option(begun: dict[str, Any], asked: dict[str, Any], is_ranking_bound: bool) -> str | None:
    """The first option in which a command asks for another sweep than was begun; None where it does not.

    Args:
        begun: options as sweep.json has them.
        asked: those of the command.
        is_ranking_bound: whether heads depend on what they are ranked by; else a sweep is ranked anew.
    """
    begun = UNTOLD | begun
    for name in {**asked, **begun}:
        if begun.get(name) != asked.get(name) and (name != "rank_by" or is_ranking_bound):
            return name
    return None


def as_interrupted(config: SweepConfig, named: Collection[str] = ()) -> SweepConfig:
    """The same, ranking as the sweep does that an earlier program began, where that is to be gone on with.

    Args:
        config: of the command.
        named: options that the user named, which stand.
    """
    path = Path(config.base.out)
    found = read_marker(path) if config.base.resume else None
    if found is None or "rank_by" in found["options"] or "rank_by" in named:
        return config
    if config.base.rank_by != UNTOLD["rank_by"]:
        note(
            f"{path}: an earlier program began this sweep; it goes on ranking by overall accuracy, as that "
            "did, and tells no balanced accuracy where heads finished then have none"
        )
    return as_untold(config, found)


def as_untold(config: SweepConfig, found: dict[str, Any]) -> SweepConfig:
    """This config, with the ranking rule of version 0.1 where sweep.json names none."""
    rank_by = config.base.rank_by if "rank_by" in found["options"] else UNTOLD["rank_by"]
    return replace(config, base=replace(config.base, rank_by=rank_by))


def varied_options(options: dict[str, Any]) -> list[str]:
    """Names of the options that a sweep varies."""
    return [name_of(text) for name in ("grid", "range") for text in options.get(name) or ()]


def split_ratio(found: dict[str, Any]) -> float | None:
    """The share of training images in the head classes, of which all heads of a sweep are told.

    None where an earlier program varied it, and told each head of its own head and tail.
    """
    options = found["options"]
    of_each = "head_ratio" in varied_options(options) and not found.get("one_split")
    return None if of_each else options["head_ratio"]
