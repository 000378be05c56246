"""A store without the images of one fold, loaded for training, and those images to score heads on."""

from dataclasses import dataclass

import numpy as np
import torch

from finetune.config import FinetuneConfig
from finetune.cross_validation.fold_store import FoldStore
from finetune.cross_validation.options import CV
from finetune.loading.features import Features, HeldOut
from finetune.loading.residency import Maps
from finetune.training.inputs import fused_layer
from finetune.training.statistics import TrainStatistics
from finetune.training.trainer import LoadedStore


@dataclass
class Fold(LoadedStore):
    """A `LoadedStore` of a `FoldStore`; its `held_out` has one split, the held-out images.

    Attributes:
        whole: all rows; the maps live there.
    """

    whole: LoadedStore | None = None

    @classmethod
    def of(
        cls, whole: LoadedStore, store: FoldStore, common: TrainStatistics, held: np.ndarray, shot_rule: str
    ) -> "Fold":
        """Take a fold's rows of a store that is loaded.

        Args:
            whole: all rows.
            store: the rows to train on.
            common: statistics of those.
            held: (M,) rows of the whole store to score on.
            shot_rule: a name in SHOT_RULES.
        """
        rows, features = (torch.from_numpy(of).to(whole.device) for of in (store.rows, held))
        train = whole.store.read("train")
        held_out = HeldOut(
            CV,
            whole.features.pooled[features],
            train.label[held].astype(np.int64),
            train.sample_index[held],
            store.class_names,
            whole.common.class_counts,  # so that Many, Medium and Few are those of the whole store
            shot_rule,
        )
        kept = Features(whole.features.pooled[rows], whole.features.label[rows])
        return cls(store, common, kept, {CV: held_out}, whole.device, whole.threads, whole=whole)

    def store_rows(self, rows: np.ndarray) -> np.ndarray:
        """See `LoadedStore.store_rows`."""
        return self.store.rows[rows]

    def prepare_maps(self, config: FinetuneConfig) -> int:
        """See `LoadedStore.prepare_maps`: the maps are loaded once, for all folds."""
        window, layer = self.whole.prepare_maps(config), fused_layer(config)
        self.residency = self.whole.residency
        _, height, width, _ = self.store.maps(layer).shape
        self.maps[layer] = MapsOfRows(self.whole.maps[layer], self.store.rows, height * width)
        return window


class MapsOfRows:
    """Some rows of the maps of a store, counted from 0."""

    def __init__(self, whole: Maps, rows: np.ndarray, n_positions: int):
        self._whole, self._rows, self._n_positions = whole, rows, n_positions

    def fused(self, vectors: np.ndarray, *rows: np.ndarray) -> torch.Tensor:
        """See `Maps`."""
        row, position = np.divmod(vectors, self._n_positions)
        of_store = self._rows[row] * self._n_positions + position
        return self._whole.fused(of_store, *(self._rows[part] for part in rows))
