"""Whether results on several stores may be averaged, and what their validation images can tell."""

from typing import Any

import numpy as np

from analysis.accuracy import MEASURES, SCORES
from analysis.shots import shot_groups
from finetune.contest.choosing import Choosing, images_of
from finetune.contest.config import ContestConfig
from finetune.cross_validation.allowed import lacks_groups
from finetune.sampling.head_tail import split_head_tail
from finetune.training.trainer import LoadedStore
from store.errors import UserError
from store.notes import note

FEW = 5  # images of a class, or groups of images, fewer than which a note tells of


def check_comparable(
    loaded: list[LoadedStore], chosen_on: list[Choosing], config: ContestConfig
) -> tuple[str, ...]:
    """The accuracies that can be averaged over stores: without those of groups if these differ.

    Notes say where they do, where the images to choose on are few or lack classes, where a split has other
    images than the first store's, and where two stores are of one Phase I.

    Raises:
        UserError: stores have other classes than the first.
    """
    first, measures = loaded[0], MEASURES
    for one, choosing in zip(loaded, chosen_on, strict=True):
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
        _note_images(one, choosing)
        if choosing.images != chosen_on[0].images:
            note(f"{path}: {choosing.split} has other images than that of {first.store.path}")
        if images_of(one, "test") != images_of(first, "test"):
            note(f"{path}: test has other images than that of {first.store.path}")
    _note_same_phase1(loaded)
    return measures


def _note_same_phase1(loaded: list[LoadedStore]) -> None:
    first: dict[str, LoadedStore] = {}
    for one in loaded:
        of_phase1 = first.setdefault(one.store.provenance["checkpoint"]["sha256"], one)
        if of_phase1 is not one:
            note(
                f"{one.store.path}: is of the same Phase I as {of_phase1.store.path}, but counts as another "
                "seed, so that deviations over stores are too small"
            )


def _groups(loaded: LoadedStore, config: ContestConfig) -> tuple[Any, ...]:
    """The head classes, and the shot group of every class."""
    counts = loaded.common.class_counts
    head = split_head_tail(counts, config.head_ratio).head
    return sorted(head.tolist()), shot_groups(counts, config.shot_rule).tolist()


def _note_images(loaded: LoadedStore, choosing: Choosing) -> None:
    where, n_classes = f"{loaded.store.path}: {choosing.split}", len(loaded.store.class_names)
    counts = np.bincount(choosing.label, minlength=n_classes)
    n_present = int((counts > 0).sum())
    if n_present < n_classes:
        note(f"{where} has images of {n_present} of {n_classes} classes, and these choose")
    (of_part, _), sizes = np.unique(np.stack([choosing.label, choosing.together]), axis=1, return_counts=True)
    n_alike = np.bincount(of_part, sizes, n_classes) ** 2 / np.bincount(of_part, sizes**2, n_classes).clip(1)
    least = float(n_alike[counts > 0].min())  # groups of one size that would say as much
    if least < FEW and len(sizes) == len(choosing.label):
        note(f"{where} has {least:.0f} image{'s' * (least > 1)} of a class, so that intervals are rough")
    elif least < FEW:
        note(
            f"{where} has images of a class that say as much as {least:.1f} groups of one size, so that "
            "intervals are rough"
        )
    if lacks_groups(loaded.store):
        note(
            f"{loaded.store.path}: its images come in groups, which an older version did not record, so that "
            "intervals take each image by itself and are too short; extract again with --overwrite"
        )
