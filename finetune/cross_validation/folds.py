"""The folds of a store's training images, each with an FC layer and class activation maps of its own."""

from collections.abc import Iterator

import numpy as np
from rich.progress import Progress

from analysis.joined import joined
from extract.classifier.folded import FoldedRows, refit
from extract.classifier.folds import TRAIN_ONLY, folds_of, images_of
from extract.heads.kinds import fully_connected
from finetune.config import FinetuneConfig
from finetune.cross_validation.allowed import check_allowed
from finetune.cross_validation.cams import FoldCams
from finetune.cross_validation.fold import Fold
from finetune.cross_validation.fold_store import FoldStore
from finetune.cross_validation.scores import Scores, n_right
from finetune.sampling.philox import CounterRNG
from finetune.training.inputs import check_batches
from finetune.training.statistics import TrainStatistics
from finetune.training.trainer import LoadedStore
from store.arrays.image_names import image_digests, image_groups
from store.errors import UserError
from store.notes import note
from store.reader import FeatureStore


class CrossValidation:
    """Folds of a store that is loaded, to train heads on one after the other.

    Attributes:
        n_folds: number of folds.
        class_counts: (n_folds, K) training images of each class in the rows that each fold trains on.
        together: (N,) int, the same for rows of one image, of copies of a file, or of one group.
        held: (n,) rows that are held out, fold after fold.
        phase1_right: (K,) held-out images that the FC layer of their fold predicts right.
    """

    def __init__(self, loaded: LoadedStore, config: FinetuneConfig, progress: Progress, tells: bool = True):
        """Deal the images to folds, and fit the FC layer of each.

        Args:
            loaded: all rows.
            config: resolved options; `folds` and `fold_seed` determine the folds.
            progress: shows fits and class activation maps.
            tells: whether a note says what is held out.

        Raises:
            UserError: the backbone saw the images, or there are too few of them for so many folds.
        """
        check_allowed(loaded.store)
        self._loaded, self._shot_rule, self.n_folds = loaded, config.shot_rule, config.folds
        train = loaded.store.read("train")
        self.together = belonging_together(loaded.store, "train", images_of(train.view))
        self._fold = _folds(loaded.store, config, self.together)
        if tells:
            _note(loaded.store, self._fold)
        self._held = [np.flatnonzero((self._fold == i) & (train.view == 0)) for i in range(self.n_folds)]
        self.held = np.concatenate(self._held)
        layers = _layers(loaded, self._fold, progress)
        cams = FoldCams(loaded.store, self._fold, layers, loaded.device, progress)
        self._statistics = [
            TrainStatistics(
                FoldStore(loaded.store, np.flatnonzero(self._fold != i), layer, lambda i=i: cams.of(i)),
                loaded.threads,
            )
            for i, layer in enumerate(layers)
        ]
        self.class_counts = np.stack([of.class_counts for of in self._statistics])
        self.phase1_right = self._phase1_right()

    def check_classes(self, config: FinetuneConfig) -> None:
        """Raise UserError if batches cannot be drawn from a fold's rows as resolved options ask."""
        for i, of_fold in enumerate(self._statistics):
            try:
                check_batches(config, of_fold.store, of_fold.class_counts)
            except UserError as error:
                raise UserError(f"--select-on cv: without fold {i + 1} of {self.n_folds}: {error}") from error

    def fold(self, i: int) -> Fold:
        """Fold i, loaded; its features are a copy, so keep one fold at a time."""
        common = self._statistics[i]
        return Fold.of(self._loaded, common.store, common, self._held[i], self._shot_rule)

    def __iter__(self) -> Iterator[Fold]:
        return map(self.fold, range(self.n_folds))

    def scores(self, n_heads: int) -> Scores:
        """Scores of heads that are trained together, before the first fold."""
        n_held = np.bincount(self._loaded.common.label[self.held], minlength=self.class_counts.shape[1])
        return Scores(
            n_heads,
            n_held,
            self._loaded.store.class_names,
            self._loaded.common.class_counts,
            self._shot_rule,
        )

    def _phase1_right(self) -> np.ndarray:
        """(K,) held-out images that the FC layer of their fold predicts right."""
        right = np.zeros(self.class_counts.shape[1], np.int64)
        for fold in self:
            right += n_right(fold, fully_connected(fold.store.classifier, fold.device))
        return right


def belonging_together(store: FeatureStore, split: str, image: np.ndarray) -> np.ndarray:
    """Number the rows of a split so that those of copies of a file, or of one group, have the same number.

    Args:
        store: the store; what it does not hold joins nothing.
        split: the split.
        image: (N,) int, the image of each row; views of one have one.

    Returns:
        (N,) int64.
    """
    known = [of for of in (image_digests(store, split), image_groups(store, split)) if of is not None]
    return joined(image, *known)


def _folds(store: FeatureStore, config: FinetuneConfig, together: np.ndarray) -> np.ndarray:
    """(N,) the fold of each row; rows that belong together are in one."""
    train = store.read("train")
    keys = CounterRNG(config.fold_seed).uniform("fold", 0, 1, len(train.label))[0]
    n_folds = min(config.folds, len(np.unique(together)))  # more are refused below
    fold = folds_of(train.label, together, n_folds, keys)
    held = fold != TRAIN_ONLY
    if not held.any():
        raise UserError(
            f"--select-on cv: {store.path}: no class has two images that may be apart, so none can be held "
            "out; add images, or take a method with --select-on test, whose results are marked"
        )
    if config.folds > n_folds or len(np.unique(fold[held])) < config.folds:
        n_parts = len(np.unique(together[held]))
        raise UserError(
            f"--folds {config.folds}: {store.path} has {n_parts:,} images or groups of images that can be "
            f"held out; pass {n_parts} at most"
        )
    return fold


def _note(store: FeatureStore, fold: np.ndarray) -> None:
    """Say how many images are held out, and what that takes for granted."""
    train = store.read("train")
    label, fold = train.label[train.view == 0], fold[train.view == 0]
    n_never = len(np.setdiff1d(label, label[fold != TRAIN_ONLY]))
    classes = "1 class has" if n_never == 1 else f"{n_never:,} classes have"
    never = f"; {classes} no two images that may be apart, so none is scored" if n_never else ""
    weights = store.provenance["network"]["weights"] or "the factory's own"
    note(
        f"cross-validation holds out {(fold != TRAIN_ONLY).sum():,} of {len(fold):,} training images, each "
        f"once, in {fold.max() + 1} folds{never}; it takes for granted that the weights of the backbone "
        f"({weights}) never saw them"
    )


def _layers(loaded: LoadedStore, fold: np.ndarray, progress: Progress) -> list[tuple[np.ndarray, np.ndarray]]:
    """The FC layer of each fold, with the weight decay that the store's own was fitted with."""
    store = loaded.store
    task = progress.add_task("fitting the classifiers of the folds", total=None, status="")

    def tick(gradient: float) -> None:
        progress.update(task, advance=1, status=f"gradient {gradient:.0e}")

    train = store.read("train")
    folded = FoldedRows(train.pooled, train.label, fold, len(store.class_names), loaded.device)
    layers = refit(folded, store.provenance["classifier"]["weight_decay"], tick)
    progress.remove_task(task)
    return layers
