"""The images that a contest chooses on: a store's val split, or its training images in folds."""

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from rich.progress import Progress

from finetune.config import FinetuneConfig
from finetune.contest.config import ContestConfig
from finetune.cross_validation.folds import CrossValidation, belonging_together
from finetune.cross_validation.options import CV
from finetune.training.trainer import LoadedStore
from store.arrays.image_names import image_digests
from store.errors import UserError


@dataclass(frozen=True)
class Choosing:
    """What heads of one store are chosen on.

    Attributes:
        split: "val" or "cv".
        label: (N,) classes of the images.
        images: equal for stores that hold the same images there, in the same order, as far as they say.
        together: (N,) int, the same for copies of an image, and for images of one group.
        folds: of the training images; None with val.
    """

    split: str
    label: np.ndarray
    images: bytes
    together: np.ndarray
    folds: CrossValidation | None = None


def choosing_on(config: ContestConfig, loaded: LoadedStore, progress: Progress) -> Choosing:
    """What a contest chooses on in a store.

    Raises:
        UserError: there is no val split, or the store does not allow cross-validation.
    """
    if config.select_on == CV:
        of_folds = FinetuneConfig(
            config.store[0], folds=config.folds, fold_seed=config.fold_seed, shot_rule=config.shot_rule
        )
        folds = CrossValidation(loaded, of_folds, progress)
        train = loaded.store.read("train")
        digests = image_digests(loaded.store, "train")
        images = _digest(
            train.label[folds.held],
            train.sample_index[folds.held],
            None if digests is None else digests[folds.held],
        )
        return Choosing(CV, train.label[folds.held], images, folds.together[folds.held], folds)
    if "val" not in loaded.held_out:
        raise UserError(
            f"{loaded.store.path}: has no val split to choose on; train with --val-per-class (or put images "
            "under val/) and extract again, or choose on folds of the training images (--select-on cv, for "
            "stores of --classifier fit)"
        )
    label = loaded.held_out["val"].label
    return Choosing("val", label, images_of(loaded, "val"), together_in(loaded, "val"))


def images_of(loaded: LoadedStore, split: str) -> bytes:
    """Equal for stores that hold the same images in a split, in the same order, as far as they say."""
    held_out = loaded.held_out[split]
    return _digest(held_out.label, held_out.sample_index, image_digests(loaded.store, split))


def together_in(loaded: LoadedStore, split: str) -> np.ndarray:
    """(N,) int, the same for images of val or test that belong together."""
    return belonging_together(loaded.store, split, np.arange(len(loaded.held_out[split].label)))


def _digest(label: np.ndarray, sample_index: np.ndarray, digests: np.ndarray | None) -> bytes:
    parts = [label.astype(np.int64), sample_index, *([] if digests is None else [digests])]
    return sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).digest()
