"""Rows replaced by new samples in batches of any sampling: fused vectors (fsa) and swapped channels (h2t).

Everything is drawn and computed once more here, number by number, from docs/run-format.md.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from finetune.config import FinetuneConfig
from finetune.loading.features import load_features
from finetune.loading.residency import Residency, hold_maps
from finetune.loading.window import WindowMaker
from finetune.methods.registry import find_sampling
from finetune.sampling.philox import KINDS
from finetune.train import finetune
from finetune.training.inputs import plan_inputs
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")
CPU = torch.device("cpu")
BATCH, ITERATIONS, K = 16, 12, 10
SAMPLINGS = ("uniform", "balanced", "halves")


def numbers(seed: int, kind: str, iteration: int, n: int) -> np.ndarray:
    """The n numbers of a kind that an iteration takes, by numpy's generator alone."""
    blocks = -(-n // 4)
    raw = np.random.Philox(key=[seed, KINDS[kind]], counter=iteration * blocks).random_raw(4 * blocks)
    return (raw[:n] >> 11) * 2.0**-53


class Reference:
    """One batch after the other, as the documentation says."""

    def __init__(self, config: FinetuneConfig):
        self.config, self.sampling = config.resolved(K), config.sampling or "balanced"  # h2t's own
        self.store = FeatureStore(Path(config.store))
        train = self.store.read("train")
        self.label, self.table = train.label, train.pooled
        self.counts = np.bincount(self.label, minlength=K)
        assert (np.diff(self.counts) <= 0).all()
        share = np.cumsum(self.counts) / self.counts.sum()
        self.n_head = int(np.searchsorted(share, self.config.head_ratio)) + 1

    def row_of(self, c: int, u: float) -> int:
        return int(np.flatnonzero(self.label == c)[int(u * self.counts[c])])

    def rows(self, t: int, n_last: int) -> list[int]:
        """The batch's rows; those that may be replaced come last."""
        config, half = self.config, BATCH // 2
        if self.sampling == "uniform":
            return [int(u * len(self.label)) for u in numbers(config.seed, "any row", t, BATCH)]
        if self.sampling == "balanced":
            classes = [int(u * K) for u in numbers(config.seed, "class", t, BATCH)]
            within = numbers(config.seed, "row of class", t, BATCH)
            return [self.row_of(c, u) for c, u in zip(classes, within, strict=True)]
        tail = [self.n_head + int(u * (K - self.n_head)) for u in numbers(config.seed, "tail", t, half)]
        within = numbers(config.seed, "row of tail class", t, half)
        tail = [self.row_of(c, u) for c, u in zip(tail, within, strict=True)]
        of_head = np.flatnonzero(self.label < self.n_head)
        head = [int(of_head[int(u * len(of_head))]) for u in numbers(config.seed, "head row", t, half)]
        n_tail, n_head = n_last // 2, n_last - n_last // 2
        first = tail[: half - n_tail] + head[: half - n_head]
        return first + tail[half - n_tail :] + head[half - n_head :]

    def batch(self, t: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Features and labels of a batch, and how many samples in it are new."""
        n_last = max(1, round(self.config.mix_share * BATCH))
        rows = self.rows(t, n_last)
        features, n_new = self.table[rows].astype(np.float64), 0
        for a, place in enumerate(range(BATCH - n_last, BATCH)):
            if self.config.mix_classes == "tail" and self.label[rows[place]] < self.n_head:
                continue
            features[place] = self.new(t, a, n_last, rows[place])
            n_new += 1
        return features, self.label[rows], n_new

    def new(self, t: int, a: int, n_last: int, row: int) -> np.ndarray:
        config = self.config
        if config.method == "h2t":
            n_channels = self.table.shape[1]
            keys = numbers(config.seed, "order of channels", t, n_channels)
            lent = np.argsort(keys, kind="stable")[: int(config.rho * n_channels)]
            made = self.table[row].astype(np.float64)
            partner = int(numbers(config.seed, "partner row", t, n_last)[a] * len(self.label))
            made[lent] = self.table[partner][lent]
            return made
        maps, cam = self.store.read_feature_map().astype(np.float64), self.store.read_cam().astype(np.float64)
        maps, cam = maps.reshape(len(maps), -1, maps.shape[-1]), cam.reshape(len(cam), -1)
        n_f, n_positions = config.confusing_classes, cam.shape[1]
        keys = numbers(config.seed, "order of confusing classes", t, n_last * n_f).reshape(n_last, n_f)[a]
        lender = self.confusing(self.label[row])[int(np.argsort(keys, kind="stable")[0])]
        donor = self.row_of(lender, numbers(config.seed, "donor row", t, n_last)[a])
        gamma = (
            config.gamma_min
            + (config.gamma_max - config.gamma_min) * numbers(config.seed, "gamma", t, n_last)[a]
        )
        n_specific = min(max(round(gamma * n_positions), 1), n_positions - 1)
        drawn = numbers(config.seed, "vector", t, n_last * n_positions).reshape(n_last, n_positions)[a]
        everywhere = np.arange(n_positions)
        specific, generic = np.flatnonzero(cam[row] > config.tau_s), np.flatnonzero(cam[donor] < config.tau_g)
        sets = (specific if len(specific) else everywhere, generic if len(generic) else everywhere)
        vectors = [
            maps[row][sets[0][int(u * len(sets[0]))]]
            if i < n_specific
            else maps[donor][sets[1][int(u * len(sets[1]))]]
            for i, u in enumerate(drawn)
        ]
        return np.mean(vectors, axis=0)

    def confusing(self, c: int) -> np.ndarray:
        """Classes with the highest mean scores of Phase I for images of a class."""
        weight, bias = (part.astype(np.float64) for part in self.store.classifier)
        logits = self.table[self.label == c].astype(np.float64) @ weight.T + bias
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        mean = (scores / scores.sum(axis=1, keepdims=True)).mean(axis=0)
        mean[c] = -1
        return np.argsort(-mean, kind="stable")[: self.config.confusing_classes]


def asked(store: Path, method: str, sampling: str, **changes: Any) -> FinetuneConfig:
    config = FinetuneConfig(str(store), "run", method, batch_size=BATCH, iterations=ITERATIONS, device="cpu")
    return replace(config, sampling=sampling, eval_every=ITERATIONS, **changes)


CASES = [("h2t", sampling, {}) for sampling in SAMPLINGS]
CASES += [
    ("fsa", "uniform", {}),
    ("fsa", "balanced", {}),
    ("fsa", "balanced", {"mix_classes": "all", "mix_share": 1.0, "gamma_min": 0.4}),
    ("fsa", "uniform", {"mix_classes": "all", "mix_share": 0.3, "seed": 5}),
    ("h2t", "uniform", {"mix_classes": "tail", "mix_share": 0.8, "rho": 0.5}),
    ("h2t", "halves", {"mix_classes": "tail", "mix_share": 0.5, "seed": 2**32 - 1}),
    ("h2t", "halves", {"mix_share": 0.3}),  # five places: two of the tail, three of the head
    ("h2t", "balanced", {"mix_share": 0.01, "rho": 1.0}),
]


@pytest.mark.parametrize(("method", "sampling", "changes"), CASES)
@pytest.mark.parametrize("kind", ["host", "stream"])
def test_batches_are_what_the_documentation_says(feature_store, method, sampling, changes, kind):
    config = asked(feature_store, method, sampling, **changes).resolved(K)
    reference, store = Reference(config), FeatureStore(feature_store)
    inputs, of_method = plan_inputs(config, store), find_sampling(config)
    maps = hold_maps(store, Residency(kind, ""), CPU) if of_method.reads_maps else None
    maker = WindowMaker(of_method.draw, inputs, load_features(store, CPU), maps)
    windows = [maker.make(bounds) for bounds in ((0, 5), (5, ITERATIONS))]
    n_new = 0
    for t, (pooled, label) in enumerate(
        pair for w in windows for pair in zip(w.pooled, w.label, strict=True)
    ):
        expected, of_rows, of_batch = reference.batch(t)
        np.testing.assert_array_equal(label, of_rows)
        np.testing.assert_allclose(pooled[:, : expected.shape[1]], expected, rtol=2e-3, atol=2e-3)
        n_new += of_batch
    assert sum(window.n_mixed for window in windows) == n_new > 0


@pytest.mark.parametrize(("method", "sampling"), [("h2t", "balanced"), ("h2t", "halves"), ("fsa", "uniform")])
def test_they_are_trained_on_as_autograd_would(feature_store, quiet, method, sampling):
    config = asked(feature_store, method, sampling, loss="balanced-softmax", lr=0.05, schedule="constant")
    run, reference = finetune(replace(config, weight_decay=0.01), quiet), Reference(config)
    weight, bias = (torch.tensor(part, requires_grad=True) for part in reference.store.classifier)
    sgd = torch.optim.SGD([weight, bias], lr=0.05, momentum=0.9, weight_decay=0.01)
    prior = reference.counts / reference.counts.sum()
    if sampling == "balanced":
        prior = np.full(K, 1 / K)
    elif sampling == "halves":
        head = np.arange(K) < reference.n_head
        prior = np.where(head, prior / (2 * prior[head].sum()), 0.5 / (~head).sum())
    for t in range(ITERATIONS):
        features, label, _ = reference.batch(t)
        logits = linear(torch.tensor(features).float(), weight, bias) + torch.tensor(prior).log().float()
        sgd.zero_grad()
        cross_entropy(logits, torch.tensor(label).long()).backward()
        sgd.step()
    found = torch.load(run.path / "head.pt", weights_only=True)
    torch.testing.assert_close(found["weight"], weight.detach(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found["bias"], bias.detach(), rtol=1e-3, atol=1e-3)
