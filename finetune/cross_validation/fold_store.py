"""A store as it would be had it been extracted without the images of one fold."""

from collections.abc import Callable

import numpy as np

from store.arrays.maps import StoredMaps
from store.arrays.split import SplitArrays
from store.reader import FeatureStore


class FoldStore:
    """What training reads of a store, for the rows that are not held out; maps stay in the whole store.

    Attributes:
        path: that of the whole store.
        class_names: K names.
        classifier: weight (K, C) and bias (K,) float32 of the FC layer fitted to these rows.
        rows: (M,) int64, ascending, these rows in the whole store.
    """

    def __init__(
        self,
        whole: FeatureStore,
        rows: np.ndarray,
        classifier: tuple[np.ndarray, np.ndarray],
        read_cam: Callable[[], np.ndarray],
    ):
        self._whole, self.path, self.class_names = whole, whole.path, whole.class_names
        self.rows, self.classifier, self._read_cam = rows, classifier, read_cam

    @property
    def map_shape(self) -> tuple[int, int, int, int]:
        """Shape (M, H, W, C) of the feature maps of these rows."""
        return len(self.rows), *self._whole.map_shape[1:]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the earlier layers whose maps the whole store holds."""
        return self._whole.layers

    def maps(self, layer: str | None = None) -> StoredMaps:
        """The maps of a layer of the whole store."""
        return self._whole.maps(layer)

    def read(self, split: str) -> SplitArrays:
        """A copy of these rows of the train split, the only one that there is."""
        return self._whole.read(split).take(self.rows)

    def read_cam(self) -> np.ndarray:
        """(M, H, W) float16 class activation maps of this classifier."""
        return self._read_cam()
