"""Whether results on several stores may be averaged, and what their validation images can tell."""

from hashlib import sha256
from typing import Any

import numpy as np

from analysis.accuracy import MEASURES, SCORES
from analysis.shots import shot_groups
from finetune.contest.config import ContestConfig
from finetune.sampling.head_tail import split_head_tail
from finetune.training.trainer import LoadedStore
from store.arrays.image_names import image_digests
from store.errors import UserError
from store.notes import note

FEW = 5  # val images of a class, fewer than which a note tells of


def check_comparable(loaded: list[LoadedStore], config: ContestConfig) -> tuple[str, ...]:
    """The accuracies that can be averaged over stores: without those of groups if these differ.

    Notes say where they do, where val is small or lacks classes, and where a split has other images than the
    first store's.

    Raises:
        UserError: stores have other classes than the first.
    """
    first, measures = loaded[0], MEASURES
    for one in loaded:
        path = one.store.path
        if one.store.class_names != first.store.class_names:
            raise UserError(
                f"{path}: has other classes than {first.store.path}, so their accuracies are not averaged; "
                "run a contest for each"
            )
        if _groups(one, config) != _groups(first, config):
            measures = tuple(SCORES.values())
            note(
                f"{path}: has other classes in Many, Medium and Few, or in head and tail, than "
                f"{first.store.path}, so the accuracies of these groups are not averaged"
            )
        _note_small_val(one)
        for split in ("val", "test"):
            if images_of(one, split) != images_of(first, split):
                note(f"{path}: {split} has other images than that of {first.store.path}")
    return measures


def _groups(loaded: LoadedStore, config: ContestConfig) -> tuple[Any, ...]:
    """The head classes, and the shot group of every class."""
    counts = loaded.common.class_counts
    head = split_head_tail(counts, config.head_ratio).head
    return sorted(head.tolist()), shot_groups(counts, config.shot_rule).tolist()


def _note_small_val(loaded: LoadedStore) -> None:
    counts = np.bincount(loaded.held_out["val"].label, minlength=len(loaded.store.class_names))
    n_classes, least = int((counts > 0).sum()), int(counts[counts > 0].min())
    if n_classes < len(counts):
        note(f"{loaded.store.path}: val has images of {n_classes} of {len(counts)} classes, and these choose")
    if least < FEW:
        images = f"{least} image{'s' * (least > 1)}"
        note(f"{loaded.store.path}: val has {images} of a class, so that intervals are rough")


def images_of(loaded: LoadedStore, split: str) -> bytes:
    """Equal for stores that hold the same images in a split, in the same order, as far as they say."""
    held_out, digests = loaded.held_out[split], image_digests(loaded.store, split)
    parts = [held_out.label, held_out.sample_index, *([] if digests is None else [digests])]
    return sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).digest()
