"""Statistics of the train split that plans and heads share."""

from functools import cached_property

import numpy as np

from finetune.heads.threads import Threads
from finetune.mixing.gaussians import ClassMoments
from finetune.sampling.confusion import Scores, confusing_classes
from store.reader import FeatureStore


class TrainStatistics:
    """What is read and computed of a train split, each once.

    Attributes:
        store: the features.
        label: (N,) int32, ascending.
        class_counts: (K,) training images.
    """

    def __init__(self, store: FeatureStore, threads: Threads | None = None):
        """Read the labels; scores and CAMs follow when a plan needs them.

        Args:
            store: the features.
            threads: threads to compute scores with; None for the calling thread alone.
        """
        self.store, self._threads = store, threads
        self._confusing: dict[tuple, np.ndarray] = {}
        self._nearest: dict[int, np.ndarray] = {}
        train = store.read("train")
        self.label = train.label
        self.class_counts = train.class_counts(len(store.class_names))

    def confusing(self, classes: np.ndarray, n_confusing: int, among: np.ndarray) -> np.ndarray:
        """(K, N_f) confusing classes of `classes`, −1 for all others; see `confusing_classes`. Cached."""
        key = (classes.tobytes(), n_confusing, among.tobytes())
        if key not in self._confusing:
            scores = Scores(self.store.read("train").pooled, *self.store.classifier, self.label)
            found = np.full((len(self.class_counts), n_confusing), -1)
            found[classes] = confusing_classes(scores, classes, n_confusing, among, self._threads)
            self._confusing[key] = found
        return self._confusing[key]

    def moments(self) -> ClassMoments:
        """Means and spread of classes; not kept, since they hold the features, a copy of a fold's."""
        return ClassMoments(self.store.read("train").pooled, self.label, len(self.class_counts))

    def variance(self) -> np.ndarray:
        """(K, C) variances of the classes' features."""
        return self._variance

    @cached_property
    def _variance(self) -> np.ndarray:
        return self.moments().variance()

    def nearest(self, k: int) -> np.ndarray:
        """(N, k) the classes nearest to each row; see `ClassMoments.nearest`. Cached."""
        if k not in self._nearest:
            self._nearest[k] = self.moments().nearest(k)
        return self._nearest[k]

    @cached_property
    def cam(self) -> np.ndarray:
        """(N, H, W) class activation maps."""
        return self.store.read_cam()
