"""A way to mix is a file: batches, losses and the run's folder take one that the package does not know."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from finetune.config import FinetuneConfig
from finetune.methods.registry import METHODS, UNIFORM, Method
from finetune.sampling.plan import Plan
from finetune.train import finetune
from store.reader import FeatureStore

BATCH, MIXED, ITERATIONS = 8, 3, 70  # more than a window


@dataclass(frozen=True)
class Halfway:
    """Samples halfway between the row that each varies and a partner."""

    row: np.ndarray
    partner: np.ndarray
    n_samples: int = MIXED
    n_empty: tuple[int, int] = (0, 0)

    def pooled(self, features, maps):
        assert maps is None
        return (features.pooled[self.row] + features.pooled[self.partner]) / 2


def halfway_plan(inputs, start: int, stop: int) -> Plan:
    """Uniform batches, the last of which are mixed with the first."""
    row = inputs.any_rows(start, stop, BATCH)
    return Plan(row, Halfway(row[:, -MIXED:], row[:, :MIXED]))


@pytest.fixture
def config(feature_store, tmp_path, monkeypatch) -> FinetuneConfig:
    method = Method("halfway", replace(UNIFORM, draw=halfway_plan))
    monkeypatch.setitem(METHODS, "halfway", method)
    asked = FinetuneConfig(str(feature_store), str(tmp_path / "run"), "halfway", batch_size=BATCH, lr=0.05)
    return replace(asked, iterations=ITERATIONS, window=32, device="cpu")


def test_a_mix_from_outside_is_trained_as_autograd_would(config, quiet):
    finetune(config, quiet)
    found = torch.load(f"{config.out}/head.pt", weights_only=True)
    store = FeatureStore(Path(config.store))
    train = store.read("train")
    pooled, label = torch.tensor(train.pooled), torch.tensor(train.label).long()
    weight, bias = (torch.tensor(part, requires_grad=True) for part in store.classifier)
    sgd = torch.optim.SGD([weight, bias], lr=0.05, momentum=config.momentum)
    for row in batches(config, len(label)):
        features = pooled[row]
        features[-MIXED:] = (features[-MIXED:] + features[:MIXED]) / 2
        sgd.zero_grad()
        cross_entropy(linear(features, weight, bias), label[row]).backward()
        sgd.step()
    torch.testing.assert_close(found["weight"], weight.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["bias"], bias.detach(), rtol=1e-4, atol=1e-5)


def batches(config: FinetuneConfig, n_rows: int) -> np.ndarray:
    """(T, B) rows, from numpy's Philox by the addresses that docs/run-format.md gives."""
    raw = np.random.Philox(key=[config.seed, 0], counter=0).random_raw(ITERATIONS * BATCH)
    return np.floor((raw.reshape(ITERATIONS, BATCH) >> 11) * 2.0**-53 * n_rows).astype(np.int64)
