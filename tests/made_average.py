"""Heads that an average is made of: on made-up features, and complementary ones in a real contest."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch

from extract.heads.kinds import FullyConnected, Layer
from finetune.config import FinetuneConfig
from finetune.contest.entries import Entry
from finetune.contest.standings import Finalist
from finetune.heads.threads import Threads
from finetune.loading.features import HeldOut
from finetune.one_head import posthoc_head
from finetune.training.trainer import LoadedStore

N_CLASSES, N_CHANNELS = 5, 32
COMPLEMENTARY = {
    "one": Entry("ncm", {"distance": ("cosine",)}),
    "other": Entry("ncm", {"distance": ("euclidean",)}),
}


class MadeHeads:
    """A store of made-up features with the layers of its heads, in place of a LoadedStore and KeptHeads.

    Attributes:
        right: a layer that is as good as any.
        added: averaged heads, each with its row.
    """

    head_ratio = 0.8

    def __init__(self, number: int = 0):
        random = np.random.default_rng(number)
        centre = random.normal(size=(N_CLASSES, N_CHANNELS)).astype(np.float32)
        names = [f"class {c}" for c in range(N_CLASSES)]
        counts = np.array([200, 100, 50, 20, 10])
        self.held_out = {}
        for split in ("val", "test"):
            label = np.repeat(np.arange(N_CLASSES), 60)
            pooled = centre[label] + 2 * random.normal(size=(len(label), N_CHANNELS)).astype(np.float32)
            held = torch.from_numpy(pooled), label, np.arange(len(label)), names, counts, "decoupling"
            self.held_out[split] = HeldOut(split, *held)
        self.right = FullyConnected(torch.from_numpy(2 * centre), torch.from_numpy(-(centre**2).sum(axis=1)))
        self.common, self.threads = SimpleNamespace(class_counts=counts), Threads(1)
        self.layers, self.added, self._kept = self, {}, {}

    def put(self, head: str, layer: Layer | None) -> None:
        """Let a head have a layer; None for one that cannot be averaged."""
        self._kept[head] = layer

    def noisy(self, number: int, by: float) -> Layer:
        """The right layer with noise on all its weights."""
        noise = torch.from_numpy(np.random.default_rng([7, number]).normal(size=self.right[0].shape))
        return FullyConnected(self.right[0] + by * noise.float(), self.right[1])

    def read(self, head: str) -> Layer | None:
        """As `KeptLayers.read`."""
        return self._kept[head]

    def row(self, head: str) -> dict[str, float]:
        """As `KeptHeads.row`."""
        return self.added[head][0] if head in self.added else {"seconds": 1.0}

    def add(self, row: dict[str, float], layer: Layer) -> None:
        """As `KeptHeads.add`."""
        self.added[row["head"]] = row, layer

    def accuracy(self, layer: Layer, split: str = "val") -> float:
        """Mean accuracy of a layer over the classes, in %; all have the same number of images."""
        held = self.held_out[split]
        return 100 * float(np.mean(held.predict(layer, self.threads) == held.label))


def entered(*stores: MadeHeads, **layers: list[Callable[[MadeHeads], Layer | None]]) -> list[Finalist]:
    """Finalists with a layer of each seed, made for each store."""
    for name, of_seeds in layers.items():
        for store in stores:
            for seed, make in enumerate(of_seeds):
                store.put(f"{name}{seed}", make(store))
    return [
        Finalist(name, "lr=1", [[f"{name}{seed}" for seed in range(len(of_seeds))] for _ in stores])
        for name, of_seeds in layers.items()
    ]


def noisy_posthoc_head(config: FinetuneConfig, loaded: LoadedStore) -> Layer:
    """A good head with noise, which has the opposite sign for the other distance."""
    as_lda = FinetuneConfig(config.store, method="lda").resolved(len(loaded.store.class_names))
    weight, bias = posthoc_head(as_lda, loaded)
    weight = weight - weight.mean(dim=0)
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=weight.shape)).float()
    sign = 1 if config.distance == "cosine" else -1
    return FullyConnected(weight + sign * 2 * weight.std() * noise, bias)
