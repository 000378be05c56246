"""A mix from outside the package: batches, losses and the run's folder work with it."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from finetune.config import FinetuneConfig
from finetune.methods.registry import METHODS, UNIFORM, Method
from finetune.methods.sampling import OF_TAIL_SAMPLES
from finetune.sampling.plan import Plan
from finetune.train import finetune
from store.errors import UserError
from store.reader import FeatureStore

BATCH, MIXED, ITERATIONS = 8, 3, 70  # more than a window


@dataclass(frozen=True)
class Halfway:
    """Samples halfway between their row and a partner."""

    row: np.ndarray
    partner: np.ndarray
    n_samples: int = MIXED
    n_empty: tuple[int, int] = (0, 0)

    def write(self, places, features, maps):
        assert maps is None
        places.add_(features.pooled[self.partner]).div_(2)


def halfway_plan(inputs, start: int, stop: int) -> Plan:
    """Uniform batches, whose last rows are mixed with the first."""
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
    """(T, B) rows, from numpy's Philox with the addresses of docs/run-format.md."""
    raw = np.random.Philox(key=[config.seed, 0], counter=0).random_raw(ITERATIONS * BATCH)
    return np.floor((raw.reshape(ITERATIONS, BATCH) >> 11) * 2.0**-53 * n_rows).astype(np.int64)


@dataclass(frozen=True)
class Borrowed(Halfway):
    """The same, with partners of a confusing class."""

    n_samples: int = BATCH // 2


def borrowed_plan(inputs, start: int, stop: int) -> Plan:
    """Half head, half tail, with tail samples mixed with a sample of their most confusing class."""
    tail, head = (rows(start, stop, BATCH // 2) for rows in (inputs.tail_rows, inputs.head_rows))
    lender = inputs.confusing[inputs.label[tail], 0]
    partner = inputs.rows_of_classes(lender, inputs.draws.uniform("donor row", start, stop, BATCH // 2))
    assert inputs.specific is None
    assert inputs.generic is None
    assert (inputs.label[partner] == lender).all()
    assert (lender != inputs.label[tail]).all()
    return Plan(np.concatenate([head, tail], axis=1), Borrowed(tail, partner))


def test_a_method_may_ask_for_confusing_classes_and_no_maps(config, quiet, monkeypatch):
    """Then neither maps nor CAMs are read, so maps of one position work."""
    sampling = replace(OF_TAIL_SAMPLES, draw=borrowed_plan, needs_confusing=True)
    monkeypatch.setitem(METHODS, "halfway", Method("borrowed", sampling))
    for name in ("read_cam", "map_shape", "read_feature_map", "feature_map"):
        monkeypatch.setattr(FeatureStore, name, property(lambda store: pytest.fail("maps were asked for")))
    monkeypatch.setattr("finetune.training.trainer.hold_maps", lambda *_: pytest.fail("maps were loaded"))
    run = finetune(config, quiet)
    assert "residency" not in run.config["facts"]
    with pytest.raises(UserError, match="--donors head"):
        finetune(replace(config, donors="head", confusing_classes=9, out=config.out + "2"), quiet)
