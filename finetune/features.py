"""A store's splits on the device where the head is trained."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from analysis.accuracy import per_class_frame
from finetune.head import Head
from store.errors import StoreError
from store.reader import FeatureStore


@dataclass(frozen=True)
class Features:
    """The train split.

    Attributes:
        pooled: (N, C) float32.
        label: (N,) int64.
        table: (N · L, C) the vectors of all feature maps, decoded; None where not needed.
    """

    pooled: torch.Tensor
    label: torch.Tensor
    table: torch.Tensor | None


@dataclass(frozen=True)
class HeldOut:
    """A held-out split (val or test) and what its accuracies are told by.

    Attributes:
        name: of the split.
        pooled: (N, C) float32 on the device.
        label, sample_index: (N,) on the host.
        class_names: K names.
        class_counts: (K,) training samples.
        shot_rule: a name in SHOT_RULES.
    """

    name: str
    pooled: torch.Tensor
    label: np.ndarray
    sample_index: np.ndarray
    class_names: list[str]
    class_counts: np.ndarray
    shot_rule: str

    def predict(self, head: Head) -> np.ndarray:
        """(N,) int64 predicted classes."""
        return head.logits(self.pooled).argmax(dim=1).cpu().numpy()

    def frame(self, prediction: np.ndarray) -> pd.DataFrame:
        """The per-class frame of predictions."""
        return per_class_frame(self.label, prediction, self.class_names, self.class_counts, self.shot_rule)


def load_features(store: FeatureStore, with_maps: bool, device: torch.device) -> Features:
    """Read the train split.

    Raises:
        StoreError: its feature maps do not fit in memory.
    """
    train = store.read("train")
    table = None
    if with_maps:
        _refuse_too_large(store, device)
        maps = store.read_feature_map()
        bits = torch.from_numpy(maps.view(np.uint16)) if store.map_dtype == "bfloat16" else None
        maps = torch.from_numpy(maps) if bits is None else bits.view(torch.bfloat16)
        table = maps.reshape(-1, maps.shape[-1]).to(device)
    label = torch.from_numpy(train.label.astype(np.int64))
    return Features(torch.from_numpy(train.pooled).to(device), label.to(device), table)


def load_held_out(store: FeatureStore, shot_rule: str, device: torch.device) -> list[HeldOut]:
    """Read val, where the store has it, and test."""
    class_counts = np.bincount(store.read("train").label, minlength=len(store.class_names))
    held_out = []
    for name in ("val", "test"):
        if name == "val" and name not in store.splits:
            continue
        split = store.read(name)
        pooled = torch.from_numpy(split.pooled).to(device)
        label = split.label.astype(np.int64)
        held_out.append(
            HeldOut(name, pooled, label, split.sample_index, store.class_names, class_counts, shot_rule)
        )
    return held_out


def available_memory() -> int | None:
    """Bytes that can be had, the page cache's among them; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def memory_for_maps(device: torch.device) -> int | None:
    """Bytes that feature maps may take on a device; None where the system does not tell."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()


def _refuse_too_large(store: FeatureStore, device: torch.device) -> None:
    free = memory_for_maps(device)
    if free is not None and store.map_bytes > free:
        raise StoreError(
            f"{store.path}: its feature maps take {store.map_bytes / 2**30:.1f} GiB and {device} has "
            f"{free / 2**30:.1f} GiB free; use a larger machine, --device cpu, or --method no-aug"
        )
