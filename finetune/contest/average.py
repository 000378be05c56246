"""The average of the best few heads: a greedy soup (Wortsman et al. 2022, "Model soups", recipe 1).

Methods are gone through from the best on val to the worst, and each stays whose heads do not lower what the
average of those so far scores there. The logits of FC layers on the same features are averaged by averaging
weights and biases, so that the average is one FC layer, as fast and as easy to deploy as any.

Methods give logits on scales of their own (weights over their norm^τ, distances to means, unbounded
cross-entropy), and the largest would decide alone. So each layer is first centred over the classes, which
changes no prediction, and divided by the standard deviation of its logits on val. The average is put back on
the first layer's scale: how sure its probabilities are is as good as that method's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from analysis.accuracy import balanced_accuracy
from extract.heads.kinds import FullyConnected
from finetune.contest.folder import KeptHeads
from finetune.contest.standings import ROUNDING, Finalist
from finetune.loading.features import ROWS_PER_PRODUCT, HeldOut
from finetune.sweep.batch import Made, head_accuracies
from finetune.training.trainer import LoadedStore

VAL = "val"
AVERAGE_OF = "average of "  # begins its name in tables


@dataclass(frozen=True)
class Average:
    """An average of heads.

    Attributes:
        finalist: it as an entry of the standings; it has a head for every seed of its methods.
        ingredients: the entries whose heads are averaged, in the order in which they were taken.
        layers: its first head, for each store.
    """

    finalist: Finalist
    ingredients: list[Finalist]
    layers: list[FullyConnected]


@dataclass(frozen=True)
class _Scaled:
    """A layer, or a sum of layers, whose logits have mean 0 over classes and a deviation of 1 over images.

    Attributes:
        weight, bias: (K, C) and (K,) float64.
        spread: the deviation that the layer, or the first of the sum, had before.
        n: layers in the sum.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    spread: float
    n: int = 1

    def plus(self, other: "_Scaled") -> "_Scaled":
        return _Scaled(self.weight + other.weight, self.bias + other.bias, self.spread, self.n + other.n)

    def mean(self) -> FullyConnected:
        """The mean, float32, on the first layer's scale."""
        factor = self.spread / self.n
        return FullyConnected((self.weight * factor).float(), (self.bias * factor).float())


Sums = list[list[_Scaled]]  # for each store, of each seed


def greedy_average(
    finalists: Sequence[Finalist], loaded: list[LoadedStore], kept: list[KeptHeads], rank_by: str
) -> Average | None:
    """The average that no further method would keep as good on val; None if none goes with the best.

    All stores have the same ingredients, chosen by the mean over stores and seeds. Of a method without random
    draws the one head counts for every seed. Rows of its heads are added to `kept`.

    Args:
        finalists: of the entries, the best first; those that are not one FC layer take no part.
        loaded: the stores.
        kept: their heads, with layers.
        rank_by: accuracy that chooses, a key of SCORES.
    """
    n_seeds = max(len(one.heads[0]) for one in finalists)
    taken: list[Finalist] = []
    sums: Sums = []
    best = -np.inf
    for one, scaled in _on_one_scale(finalists, n_seeds, loaded, kept):
        tried = scaled if not taken else _added(sums, scaled)
        score = _score(tried, loaded, rank_by)
        if score >= best - ROUNDING:
            taken, sums, best = [*taken, one], tried, max(best, score)
    if len(taken) < 2:
        return None
    n_heads = max(len(one.heads[0]) for one in taken)
    heads = [f"average-{seed}" for seed in range(n_heads)]
    for i, of_store in enumerate(sums):
        for seed, head in enumerate(heads):
            _add(
                head,
                of_store[seed].mean(),
                [_of_seed(one.heads[i], seed) for one in taken],
                loaded[i],
                kept[i],
            )
    names = ", ".join(one.entry for one in taken)
    finalist = Finalist(f"{AVERAGE_OF}{len(taken)}", names, [heads] * len(loaded))
    return Average(finalist, taken, [of_store[0].mean() for of_store in sums])


def _on_one_scale(
    finalists: Sequence[Finalist], n_seeds: int, loaded: list[LoadedStore], kept: list[KeptHeads]
) -> Iterator[tuple[Finalist, Sums]]:
    """Each entry that can be averaged, one at a time, with its layers: for each store, of each seed."""
    for one in finalists:
        scaled = []
        for i, (of_store, store) in enumerate(zip(kept, loaded, strict=True)):
            of_heads = [_scaled(of_store.layers.read(head), store.held_out[VAL]) for head in one.heads[i]]
            scaled.append([_of_seed(of_heads, seed) for seed in range(n_seeds)])
        if all(layer is not None for of_store in scaled for layer in of_store):
            yield one, scaled


def _of_seed(heads: list, seed: int):
    """What a method has for a seed: without random draws it has one for all."""
    return heads[seed] if len(heads) > 1 else heads[0]


def _scaled(layer: FullyConnected | None, split: HeldOut) -> _Scaled | None:
    """A layer with its logits centred over classes, and of unit deviation on a split's images."""
    if layer is None:
        return None
    weight, bias = (of.to(split.pooled.device, torch.float64) for of in layer)
    weight, bias = weight - weight.mean(dim=0), bias - bias.mean()
    total = 0.0
    for start in range(0, len(split.pooled), ROWS_PER_PRODUCT):
        block = split.pooled[start : start + ROWS_PER_PRODUCT].double()
        total += torch.nn.functional.linear(block, weight, bias).square().sum().item()
    spread = (total / (len(split.pooled) * len(bias))) ** 0.5
    return _Scaled(weight / spread, bias / spread, spread) if 0 < spread < np.inf else None


def _added(sums: Sums, scaled: Sums) -> Sums:
    return [
        [total.plus(one) for total, one in zip(*of_store, strict=True)]
        for of_store in zip(sums, scaled, strict=True)
    ]


def _score(sums: Sums, loaded: list[LoadedStore], rank_by: str) -> float:
    """Accuracy of the means on val, in %: the mean over stores of the mean over seeds."""
    of_stores = []
    for of_store, store in zip(sums, loaded, strict=True):
        val = store.held_out[VAL]
        predicted = [val.predict(one.mean(), store.threads) for one in of_store]
        of_stores.append(np.mean([_accuracy(val.label, of_seed, rank_by) for of_seed in predicted]))
    return float(np.mean(of_stores))


def _accuracy(label: np.ndarray, prediction: np.ndarray, rank_by: str) -> float:
    if rank_by == "overall":
        return 100 * float(np.mean(label == prediction))
    return balanced_accuracy(label, prediction)


def _add(head: str, layer: FullyConnected, of: list[str], loaded: LoadedStore, kept: KeptHeads) -> None:
    """Add an averaged head to those of a store; its seconds are those of the heads that it is made of."""
    found = head_accuracies(0, Made(layer, 0, None), loaded, None, kept.head_ratio)
    seconds = sum(kept.row(one)["seconds"] for one in of)
    kept.add({"head": head, "diverged_at": None} | found | {"seconds": seconds}, layer)
