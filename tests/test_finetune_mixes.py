"""Rows replaced by new samples in batches of any sampling: fused, with swapped channels, or mixed up.

Everything is drawn and computed once more in `batches_by_hand`.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from batches_by_hand import CPU, ITERATIONS, SAMPLINGS, K, Reference, asked
from torch.nn.functional import cross_entropy, linear

from finetune.loading.features import load_features
from finetune.loading.residency import Residency, hold_maps
from finetune.loading.window import WindowMaker
from finetune.methods.registry import find_sampling
from finetune.train import finetune
from finetune.training.inputs import plan_inputs
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")
CASES = [
    (method, sampling, {}) for method in ("h2t", "mixup", "remix", "tailcalib") for sampling in SAMPLINGS
]
CASES += [
    ("fsa", "uniform", {}),
    ("fsa", "balanced", {}),
    ("fsa", "balanced", {"mix_classes": "all", "mix_share": 1.0, "gamma_min": 0.4}),
    ("fsa", "uniform", {"mix_classes": "all", "mix_share": 0.3, "seed": 5}),
    ("h2t", "uniform", {"mix_classes": "tail", "mix_share": 0.8, "rho": 0.5}),
    ("h2t", "halves", {"mix_classes": "tail", "mix_share": 0.5, "seed": 2**32 - 1}),
    ("h2t", "halves", {"mix_share": 0.3}),  # five places: two of the tail, three of the head
    ("h2t", "balanced", {"mix_share": 0.01, "rho": 1.0}),
    ("mixup", "uniform", {"alpha": 0.2, "seed": 2**32 - 1, "mix_share": 0.3}),
    ("remix", "halves", {"alpha": 5.0, "mix_share": 0.3}),
    ("remix", "uniform", {"mix_classes": "tail", "mix_share": 0.8}),
    ("remix", "balanced", {"mix_classes": "fill"}),
    ("fsa", "balanced", {"mix_classes": "fill", "mix_share": 0.8}),
    ("tailcalib", "uniform", {"mix_classes": "all", "covariance": "diagonal", "spread": 0.02}),
    ("tailcalib", "balanced", {"neighbour_classes": 1, "spread": 0.02, "seed": 2**32 - 1}),
    ("tailcalib", "halves", {"mix_classes": "tail", "mix_share": 0.3, "neighbour_classes": 10}),
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
    batches = [(w, t) for w in windows for t in range(len(w.pooled))]
    for iteration, (window, t) in enumerate(batches):
        expected, of_rows, of_batch = reference.batch(iteration)
        np.testing.assert_array_equal(window.label[t], of_rows)
        np.testing.assert_allclose(window.pooled[t, :, : expected.shape[1]], expected, rtol=2e-3, atol=2e-3)
        target = np.eye(K)[of_rows]
        if window.second is not None:
            share = window.second.share[t].numpy()[:, None]
            target = (1 - share) * target + share * np.eye(K)[window.second.label[t]]
        np.testing.assert_allclose(target, reference.targets(iteration), atol=1e-9)
        n_new += of_batch
    assert sum(window.n_mixed for window in windows) == n_new > 0


@pytest.mark.parametrize(
    ("method", "sampling"),
    [("h2t", "balanced"), ("h2t", "halves"), ("fsa", "uniform"), ("mixup", "uniform"), ("mixup", "halves")],
)
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
        features, _, _ = reference.batch(t)
        logits = linear(torch.tensor(features).float(), weight, bias) + torch.tensor(prior).log().float()
        sgd.zero_grad()
        cross_entropy(logits, torch.tensor(reference.targets(t)).float()).backward()
        sgd.step()
    found = torch.load(run.path / "head.pt", weights_only=True)
    torch.testing.assert_close(found["weight"], weight.detach(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found["bias"], bias.detach(), rtol=1e-3, atol=1e-3)
