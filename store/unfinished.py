"""What an interrupted writer left, and what may become of it.

`feats.zarr.unfinished` holds the store to be under its own name, `begun.json` (what it is to be),
`commits.jsonl` (what lies on the disk), `lock`, and at the end `replaced`, the store that was there before.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


def is_finished(path: Path, plan: StorePlan, overwrite: bool) -> bool:
    """Whether there is nothing to resume, since the store that the plan describes is complete already.

    Raises:
        StoreError: a store is complete there, and is another that may not be replaced.
    """
    if not _is_whole(path, plan, overwrite):
        return False
    folder = unfinished_folder(path)
    if folder.exists():
        with sole_owner(folder):
            clear(folder)
    return True


def _is_whole(path: Path, plan: StorePlan, overwrite: bool) -> bool:
    if not _published(path):
        return False
    attributes, _ = open_container(path)
    if attributes.get("complete") is not True:
        return False
    made = attributes["provenance"].get("identity", {})
    if overwrite and any(made.get(name) != value for name, value in plan.identity.items()):
        return False
    for name, value in plan.identity.items():
        _refuse_unlike(path, name, made.get(name), value)
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


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Make the folder of an unfinished store, if need be, and hold its lock.

    Where nothing is begun in it at the end, the folder goes, its lock last: until then nobody else can take
    it for theirs.

    Raises:
        StoreError: another process holds it, or the folder is somebody else's.
    """
    _refuse_foreign(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder / "lock"):
        try:
            yield
        finally:
            if not (folder / "begun.json").exists():
                clear(folder)
                (folder / "lock").unlink()
                with suppress(OSError):  # somebody else may have begun in it by now
                    folder.rmdir()


def take_over(path: Path, plan: StorePlan, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """What was begun and is to be gone on with, None for a beginning anew; whoever calls it holds the lock.

    What was seen before the lock was held is looked at again: another process may have finished meanwhile.
    """
    check_writable(path, resume, overwrite)
    folder = unfinished_folder(path)
    if resume and _is_whole(path, plan, overwrite):
        raise StoreError(f"{path}: another process has just finished this store; run it again")
    begun = read_begun(folder)
    if begun is not None and resume:
        refuse_other(folder, begun, plan)
        return begun
    replaced = folder / "replaced"
    if replaced.exists() and not path.exists():  # killed between two renames: the older store comes back
        os.replace(replaced, path)
    clear(folder)
    return None


def clear(folder: Path) -> None:
    """Remove what an unfinished store's folder holds, but for the lock.

    `begun.json` goes first: a kill on the way must not leave what looks like something to go on with.
    """
    _refuse_foreign(folder)
    (folder / "begun.json").unlink(missing_ok=True)
    for entry in folder.iterdir():
        if entry.name != "lock":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists():
        return
    cut_short = (file.name for file in folder.glob(f".*{UNFINISHED}*"))
    name = folder.name.removesuffix(".unfinished")
    trees = (name, f"{name}.parts", f"{name}.assembling")
    ours = ("begun.json", "commits.jsonl", "lock", "replaced", *trees)
    if found := foreign_names(folder, (*ours, *cut_short)):
        raise StoreError(f"{folder}: is in the way of the store (it {found}); move it elsewhere")


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
