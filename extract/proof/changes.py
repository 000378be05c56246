"""Describing how the images of a data set have changed since training."""

from pathlib import Path

import numpy as np

from extract.dataset import Dataset
from extract.proof.digest import digest_of
from extract.proof.record import Recorded
from store.names import shown

MOST_READ = 1000  # new files that are read to find images that moved


def describe_changes(dataset: Dataset, recorded: dict[str, Recorded]) -> str:
    """Which files are missing, have moved, or are new: the first of each, and how many."""
    was = {
        name: split.digest[i].tobytes() for split in recorded.values() for i, name in enumerate(split.names)
    }
    now = {
        name: path
        for split in dataset.splits.values()
        if split.name is not None
        for name, path in zip(split.name.tolist(), split.images, strict=True)
    }
    root = Path(dataset.config.root or "")
    added = [name for name in now if name not in was]
    gone = [name for name in was if name not in now]
    missing = [name for name in gone if not (root / name.decode()).exists()]
    moved = _moved({was[name]: name for name in missing}, {name: now[name] for name in added})
    missing = [name for name in missing if name not in moved]
    added = [name for name in added if name not in moved.values()]
    parts = [f"{len(missing)} missing (the first is {shown(missing[0].decode())})"] if missing else []
    if moved:
        name, to = next(iter(moved.items()))
        parts.append(f"{len(moved)} moved (the first from {shown(name.decode())} to {shown(to.decode())})")
    if len(gone) > len(missing) + len(moved) and not _is_drawn(dataset):
        passed = next(name for name in gone if name not in moved and name not in missing)
        n_passed = len(gone) - len(missing) - len(moved)
        parts.append(f"{n_passed} no longer taken for images (the first is {shown(passed.decode())})")
    if added and dataset.config.imbalance_factor is not None:
        first = shown(added[0].decode())
        others = f"the long tail would now take {len(added)} other images (the first is {first})"
        parts.append(", so that ".join(filter(None, [_counts(dataset, recorded), others])))
    elif added:
        parts.append(f"{len(added)} new (the first is {shown(added[0].decode())})")
    return ", ".join(parts) or "they are split, labelled or ordered differently"


def describe_undrawn(dataset: Dataset, recorded: dict[str, Recorded]) -> str:
    """What changed among images that the long tail leaves out; empty without a long tail."""
    if dataset.config.imbalance_factor is None:
        return ""
    return _counts(dataset, recorded) or "images that the long tail leaves out were renamed or replaced"


def _counts(dataset: Dataset, recorded: dict[str, Recorded]) -> str:
    """The first class with more or fewer images to draw from than in training; empty if none or unknown.

    Which images are new is unknown, because only the names of drawn images are recorded.
    """
    then, now = recorded["train"].per_class if "train" in recorded else None, dataset.per_class
    if then is None or then.shape != now.shape or (then == now).all():
        return ""
    first, *others = np.flatnonzero(then != now).tolist()
    more = f" (and {len(others)} more changed)" if others else ""
    name = shown(dataset.class_names[first])
    return f"train/{name} has {now[first]:,} images to draw from, {then[first]:,} then{more}"


def _is_drawn(dataset: Dataset) -> bool:
    """Whether images are drawn at random, so that one more or less may change which others are taken."""
    return dataset.config.imbalance_factor is not None or dataset.config.val_per_class > 0


def _moved(missing: dict[bytes, bytes], added: dict[bytes, Path]) -> dict[bytes, bytes]:
    """Old and new names of images that moved, found by the content of new files.

    Args:
        missing: names by digest.
        added: files by name.
    """
    moved = {}
    for name, path in added.items() if missing and len(added) <= MOST_READ else ():
        try:
            found = missing.pop(digest_of(path.read_bytes()), None)
        except OSError:
            continue
        if found is not None:
            moved[found] = name
    return moved
