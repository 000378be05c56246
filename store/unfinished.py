"""What an interrupted writer left, and what may become of it.

`feats.zarr.unfinished` holds the store to be under its own name, `begun.json` (what it is to be),
`commits.jsonl` (what lies on the disk), `lock`, and at the end `replaced`, the store that was there before.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from store.atomic import UNFINISHED, foreign_names, refuse_existing
from store.commits import sole_writer
from store.container import foreign_to_store, open_container, refuse_other_suffix
from store.errors import StoreError
from store.plan import StorePlan


def unfinished_folder(path: Path) -> Path:
    """Where a store is written until it is complete; a link is followed."""
    real = Path(os.path.realpath(path))
    return real.with_name(f"{real.name}.unfinished")


def check_writable(path: Path, resume: bool, overwrite: bool) -> None:
    """Raise what `write_store` would for what lies at a path, before anything is computed.

    Raises:
        StoreError: something is in the way, or an extraction was begun and is neither resumed nor replaced.
    """
    refuse_other_suffix(path)
    folder = unfinished_folder(path)
    begun = read_begun(folder)
    may_stay = resume and (replaces_store(begun) or _published(path))
    refuse_existing(path, "store", foreign_to_store, overwrite or may_stay)
    if begun is not None and not (resume or overwrite):
        raise StoreError(
            f"{folder}: this store was begun; pass --resume to go on, or --overwrite to begin anew"
        )


def is_finished(path: Path, plan: StorePlan) -> bool:
    """Whether there is nothing to resume, since the store that the plan describes is complete already.

    Raises:
        StoreError: a store is complete there, and is another.
    """
    if not _published(path):
        return False
    attributes, _ = open_container(path)
    if attributes.get("complete") is not True:
        return False
    begun = attributes["provenance"].get("identity", {})
    for name, value in plan.identity.items():
        _refuse_unlike(path, name, begun.get(name), value)
    discard(unfinished_folder(path))
    return True


def remove_cut_short(folder: Path) -> None:
    """Remove the files that a kill left under their names of passage."""
    for file in folder.rglob(f".*{UNFINISHED}*"):
        file.unlink()


def read_begun(folder: Path) -> dict[str, Any] | None:
    """What was begun, None where nothing was or its beginning was cut short."""
    try:
        return json.loads((folder / "begun.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise StoreError(f"{folder}: begun.json is damaged; pass --overwrite to begin anew") from error


def _published(path: Path) -> bool:
    tree = unfinished_folder(path) / Path(os.path.realpath(path)).name
    return path.exists() and not tree.exists() and not tree.with_name(f"{tree.name}.parts").exists()


def replaces_store(begun: dict[str, Any] | None) -> bool:
    return begun is not None and begun["replaces"]


def discard(folder: Path) -> None:
    """Remove what an earlier attempt left, once it is seen to be that alone."""
    if not folder.exists():
        return
    cut_short = (file.name for file in folder.glob(f".*{UNFINISHED}*"))
    name = folder.name.removesuffix(".unfinished")
    trees = (name, f"{name}.parts", f"{name}.assembling")
    ours = ("begun.json", "commits.jsonl", "lock", "replaced", *trees)
    if found := foreign_names(folder, (*ours, *cut_short)):
        raise StoreError(f"{folder}: is in the way of the store (it {found}); move it elsewhere")
    with sole_writer(folder / "lock"):
        shutil.rmtree(folder)


def refuse_other(folder: Path, begun: dict[str, Any], plan: StorePlan) -> None:
    for name, value in plan.identity.items():
        _refuse_unlike(folder, name, begun["identity"].get(name), value)
    for path, layout in plan.layouts_as_json.items():
        _refuse_unlike(folder, f"layout of {path}", begun["layouts"].get(path), layout)


def _refuse_unlike(folder: Path, name: str, was: Any, now: Any) -> None:
    if was != now:
        raise StoreError(
            f"{folder}: was begun with another {name} ({was}) than asked for now ({now}); ask for the same, "
            "or pass --overwrite to begin anew"
        )
