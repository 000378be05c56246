"""Whether a sweep's folder is taken: checks of what lies there, made before heavy imports."""

import json
import re
from pathlib import Path
from typing import Any

from finetune.sweep.config import SweepConfig
from finetune.sweep.marker import MARKER, as_recorded, differing_option, options_of, read_made, read_marker
from store.errors import UserError
from store.storage.atomic import check_not_both, check_replaceable, foreign_names, is_leftover
from store.storage.location import locate
from store.storage.lock import lock_of

DONE, HEADS = "done", "heads"  # its subfolders
RESULTS = ("results.csv", "results.parquet", "ranking.csv")


def check_not_taken(config: SweepConfig) -> None:
    """Raise UserError for a folder that the sweep may neither resume nor replace.

    Reads the store, to tell whether the sweep there is the same one. Stores in a bucket and sweeps of older
    versions are left to `SweepFolder.prepare`, and a folder that another process is writing to its lock.
    """
    path, base = Path(config.base.out), config.base
    if lock_of(path).exists():
        return
    check_same_content(config)
    found = None if base.resume or base.overwrite else read_marker(path)
    n_heads, where = read_made(path).get("n_heads"), locate(base.store)
    if found is None or n_heads is None or not isinstance(where, Path):
        return
    from finetune.store_identity import other_part, store_digests
    from store.reader import FeatureStore

    store = FeatureStore(where)
    if other_part(found["store"], store, store_digests(store), path) is not None:
        raise another_sweep(path)
    raise unfinished_sweep(path, len(heads_done(path)), n_heads)


def check_same_content(config: SweepConfig) -> None:
    """Raise UserError for a folder that holds something other than a sweep, or a sweep with other options.

    When resuming, `SweepFolder.prepare` checks the options.
    """
    path, base = Path(config.base.out), config.base
    check_not_both(path, "a sweep", base.resume, base.overwrite)
    if base.resume and (path / MARKER).exists():
        return
    check_replaceable(path, "sweep", _foreign_to_sweep, overwrite=True)
    found = None if base.overwrite else read_marker(path)
    if found is not None and not is_alike(config, found):
        raise another_sweep(path)


def is_alike(config: SweepConfig, found: dict[str, Any]) -> bool:
    """Whether a command has the options of the sweep that `read_marker` found."""
    asked = options_of(as_recorded(config, found))
    return differing_option(found["options"], asked, is_ranking_bound(config)) is None


def is_ranking_bound(config: SweepConfig) -> bool:
    """Whether heads depend on --rank-by; if not, a sweep can be ranked again by another accuracy."""
    return any(one.keep == "best" for one in config.configurations())


def another_sweep(path: Path) -> UserError:
    """The error for a folder that holds another sweep."""
    return UserError(
        f"{path}: holds another sweep with {len(heads_done(path))} heads done; use another --out, or pass "
        "--overwrite to delete them"
    )


def unfinished_sweep(path: Path, n_done: int, n_heads: int) -> UserError:
    """The error for a folder that holds this sweep, without --resume or --overwrite."""
    return UserError(
        f"{path}: holds this sweep, with {n_done} of its {n_heads} heads done; pass --resume to continue it, "
        "or --overwrite to delete them and start over"
    )


def heads_done(path: Path) -> set[str]:
    """Ids of the finished heads in a sweep's folder; damaged files are skipped."""
    return {head for file in (path / DONE).glob("*.json") for head in _heads(file)}


def _heads(file: Path) -> list[str]:
    try:
        return [row["head"] for row in json.loads(file.read_text())]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _foreign_to_sweep(path: Path) -> str | None:
    if not path.is_dir() or read_marker(path) is None:
        return foreign_names(path, ())
    for name, suffix in ((DONE, ".json"), (HEADS, ".pt")):
        if (path / name).exists():
            entries = [e.name for e in (path / name).iterdir()] if (path / name).is_dir() else [name]
            for entry in entries:
                if not (re.fullmatch(r"[0-9a-f]{16}" + re.escape(suffix), entry) or is_leftover(entry)):
                    return f"holds {name}/{entry}"
    return foreign_names(path, (MARKER, DONE, HEADS, *RESULTS))
