"""Splits of a store, on the device where the head is trained."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from analysis.accuracy import per_class_frame
from extract.heads.kinds import Layer
from finetune.heads.threads import Threads
from store.reader import FeatureStore

# Held-out rows per matrix product: a fixed shape, so that rounding does not depend on the number of threads.
ROWS_PER_PRODUCT = 2048


@dataclass(frozen=True)
class Features:
    """The train split without its maps.

    Attributes:
        pooled: (N, C) float32.
        label: (N,) int64.
    """

    pooled: torch.Tensor
    label: torch.Tensor

    def rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Pooled features (…, C) of rows in any shape; twice as fast as indexing with them."""
        return self.pooled.index_select(0, rows.flatten()).view(*rows.shape, self.pooled.shape[1])


@dataclass(frozen=True)
class HeldOut:
    """A held-out split (val or test), with what its per-class frame needs.

    Attributes:
        name: name of the split.
        pooled: (N, C) float32 on the device.
        label, sample_index: (N,) on the host.
        class_names: K names.
        class_counts: (K,) training images.
        shot_rule: a name in SHOT_RULES.
    """

    name: str
    pooled: torch.Tensor
    label: np.ndarray
    sample_index: np.ndarray
    class_names: list[str]
    class_counts: np.ndarray
    shot_rule: str

    def predict(self, layer: Layer, threads: Threads) -> np.ndarray:
        """(N,) int64 classes that a head predicts, given on the same device."""
        prediction = torch.empty(len(self.pooled), dtype=torch.int64, device=self.pooled.device)

        def predict_block(start: int) -> None:
            block = self.pooled[start : start + ROWS_PER_PRODUCT]
            prediction[start : start + ROWS_PER_PRODUCT] = layer.logits(block).argmax(dim=1)

        threads.each(predict_block, range(0, len(prediction), ROWS_PER_PRODUCT))
        return prediction.cpu().numpy()

    def frame(self, prediction: np.ndarray) -> pd.DataFrame:
        """Per-class frame of predictions."""
        return per_class_frame(self.label, prediction, self.class_names, self.class_counts, self.shot_rule)


def load_features(store: FeatureStore, device: torch.device) -> Features:
    """Read the train split's pooled features and labels."""
    train = store.read("train")
    label = torch.from_numpy(train.label.astype(np.int64))
    return Features(torch.from_numpy(train.writeable_pooled).to(device), label.to(device))


def load_held_out(store: FeatureStore, shot_rule: str, device: torch.device) -> dict[str, HeldOut]:
    """Read val, if the store has it, and test."""
    class_counts = store.read("train").class_counts(len(store.class_names))
    held_out = {}
    for name in ("val", "test"):
        if name == "val" and name not in store.splits:
            continue
        split = store.read(name)
        pooled = torch.from_numpy(split.writeable_pooled).to(device)
        label = split.label.astype(np.int64)
        held_out[name] = HeldOut(
            name, pooled, label, split.sample_index, store.class_names, class_counts, shot_rule
        )
    return held_out
