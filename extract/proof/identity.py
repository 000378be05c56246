"""Whether images are still those of a checkpoint: names are checked at once, contents when read."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from extract.checkpoints.checkpoint import Checkpoint, CheckpointError
from extract.dataset import Dataset
from extract.images.image_set import ImageSet
from extract.proof.changes import describe_changes, describe_undrawn
from extract.proof.record import Recorded, recorded_images, text_of
from store.names import composed, shown
from store.notes import note


def bound_to(dataset: Dataset, checkpoint: Checkpoint, where: Path | str) -> Dataset:
    """The data set with the checkpoint's digests, so that reading an image that changed is an error.

    Names that differ only in their Unicode form, which some file systems change, count as the same if they
    sort the same way.

    Args:
        dataset: listed; images in memory are compared at once.
        checkpoint: of the training.
        where: the checkpoint's path, for messages.

    Raises:
        CheckpointError: classes or images are missing, new, moved or replaced.
    """
    if checkpoint.images is None:
        return _bound_by_name(dataset, checkpoint, where)
    recorded = recorded_images(checkpoint, where)
    unlike = [
        name
        for name in {**recorded, **dataset.splits}
        if name not in recorded
        or name not in dataset.splits
        or recorded[name].text != text_of(dataset.splits[name])
    ]
    if unlike and not _same_but_for_form(dataset, recorded, where):
        raise _other_images(dataset, where, describe_changes(dataset, recorded))
    if unlike:
        note(
            f"{_place(dataset)}: has names in another Unicode form than {where} "
            f"({unlike[0]}); they count as the same"
        )
    bound = {}
    for name, split in dataset.splits.items():
        if len(split) != len(recorded[name].digest):
            raise _other_images(dataset, where, _counted(dataset, checkpoint))
        bound[name] = _bound_split(dataset, split, recorded[name], where)
        if name in unlike and split.name is not None:  # stores and tables use the names of training
            bound[name] = replace(bound[name], name=np.array(recorded[name].names, dtype=bytes))
    if not unlike and dataset.fingerprint != checkpoint.fingerprint:
        raise _other_images(
            dataset, where, describe_undrawn(dataset, recorded) or "their classes or labels differ"
        )
    return replace(dataset, class_names=checkpoint.class_names, record=checkpoint.images, **bound)


def _bound_by_name(dataset: Dataset, checkpoint: Checkpoint, where: Path | str) -> Dataset:
    if dataset.fingerprint != checkpoint.fingerprint:
        raise _other_images(dataset, where, _counted(dataset, checkpoint))
    if any(split.name is not None for split in dataset.splits.values()):
        note(
            f"{where}: its version recorded names of images but no digests; whether the files still hold the "
            "same images is unknown"
        )
    return dataset


def _same_but_for_form(dataset: Dataset, recorded: dict[str, Recorded], where: Path | str) -> bool:
    """Whether names differ only in their Unicode form.

    Raises:
        CheckpointError: they do, and therefore sort differently.
    """
    names_then = sorted(b"".join(split.text for split in recorded.values()).split(b"\0"))
    names_now = sorted(b"".join(text_of(split) for split in dataset.splits.values()).split(b"\0"))
    if names_then == names_now:
        return False  # they have other classes or splits
    then = {name: composed(split.text.decode()) for name, split in recorded.items()}
    now = {name: composed(text_of(split).decode()) for name, split in dataset.splits.items()}
    names_then, names_now = (sorted("".join(names.values()).split("\0")) for names in (then, now))
    if then != now and names_then == names_now:
        raise CheckpointError(
            f"{where}: {_place(dataset)} has names in another Unicode form than in training (copying between "
            "file systems may change it), which sorts them differently; rename them as they were, or train "
            "again"
        )
    return then == now


def _bound_split(dataset: Dataset, split: ImageSet, recorded: Recorded, where: Path | str) -> ImageSet:
    """One split with its recorded digests; digests that are already known are compared."""
    if split.digest is not None:
        unlike = np.flatnonzero((split.digest != recorded.digest).any(axis=1))
        if len(unlike):
            first = int(unlike[0])
            image = (
                f"image {split.sample_index[first]}"
                if split.name is None
                else shown(split.name[first].decode())
            )
            raise _other_images(dataset, where, f"{len(unlike)} changed (the first is {image})")
    return replace(split, digest=recorded.digest)


def _counted(dataset: Dataset, checkpoint: Checkpoint) -> str:
    return f"{len(dataset.train)} for training, {sum(checkpoint.class_counts)} then, or other names"


def _other_images(dataset: Dataset, where: Path | str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{where}: was trained on other images than {_place(dataset)} holds now: {what}; "
        "put them back as they were, point --root at the data set it was trained on, or train again"
    )


def _place(dataset: Dataset) -> str:
    return dataset.config.root or dataset.config.dataset
