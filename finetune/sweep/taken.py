"""The folder that a sweep is to fill, where something lies there: told before anything heavy is imported."""

import json
import re
from pathlib import Path
from typing import Any

from finetune.sweep.config import SweepConfig
from finetune.sweep.marker import MARKER, as_untold, differing_option, options_of, read_made, read_marker
from store.errors import UserError
from store.storage.atomic import check_not_both, check_replaceable, foreign_names, is_leftover
from store.storage.location import locate
from store.storage.lock import lock_of

DONE, HEADS = "done", "heads"  # folders in it
RESULTS = ("results.csv", "results.parquet", "ranking.csv")


def check_not_taken(config: SweepConfig) -> None:
    """Raise UserError for a folder that the sweep can neither go on with nor replace.

    Whether it is the same sweep that was begun there, its store tells, which is read for it; not from a
    bucket, and not of an earlier program's sweep: `SweepFolder.begin` tells those. Of a folder that another
    process is writing, its lock tells.
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
    raise begun_sweep(path, len(heads_done(path)), n_heads)


def check_same_content(config: SweepConfig) -> None:
    """Raise UserError for a folder that holds what is no sweep, or a sweep of other options.

    One that is to be gone on with is asked for its options by `SweepFolder.begin`.
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
    """Whether a command asks for the options of the sweep that `read_marker` found."""
    asked = options_of(as_untold(config, found))
    return differing_option(found["options"], asked, is_ranking_bound(config)) is None


def is_ranking_bound(config: SweepConfig) -> bool:
    """Whether heads depend on what they are ranked by; else a sweep is ranked anew."""
    return any(one.keep == "best" for one in config.configurations())


def another_sweep(path: Path) -> UserError:
    """What to say of a folder that holds another sweep."""
    return UserError(
        f"{path}: holds another sweep, {len(heads_done(path))} heads of which are done; name another --out, "
        "or pass --overwrite to throw them away"
    )


def begun_sweep(path: Path, n_done: int, n_heads: int) -> UserError:
    """What to say of a folder that holds the same sweep, which is neither to be gone on with nor replaced."""
    return UserError(
        f"{path}: this sweep was begun, and {n_done} of its {n_heads} heads are done; pass --resume to go "
        "on, or --overwrite to throw them away and begin anew"
    )


def heads_done(path: Path) -> set[str]:
    """Names of the heads that a sweep's folder says are done; of damaged files none."""
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
