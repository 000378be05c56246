"""Samples with two labels (mixup, remix): their loss, the prior of batches, how shares are spread."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from batches_by_hand import BATCH, ITERATIONS, SAMPLINGS, K, Reference, asked
from scipy.stats import beta, kstest, uniform
from torch.nn.functional import linear

from finetune.config import FinetuneConfig
from finetune.methods.losses import make_loss
from finetune.methods.registry import find_sampling
from finetune.mixing.mixup import share_quantiles
from finetune.train import finetune
from finetune.training.inputs import plan_inputs
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.mark.parametrize("loss", ["focal", "class-balanced", "re-weighted", "label-aware-smoothing"])
@pytest.mark.parametrize("method", ["remix", "mixup"])
def test_a_sample_with_two_labels_has_both_their_losses_by_their_shares(feature_store, quiet, method, loss):
    """Weights by class as well: those of both labels, each by its share."""
    changes = {"lr": 0.2, "schedule": "constant", "mix_share": 0.5, "focal_gamma": 2.0, "beta": 0.99}
    config = asked(feature_store, method, None, loss=loss, **changes)
    run, reference = finetune(config, quiet), Reference(config)
    weight, bias = (torch.tensor(part, requires_grad=True) for part in reference.store.classifier)
    sgd = torch.optim.SGD([weight, bias], lr=0.2, momentum=0.9, weight_decay=5e-4)
    inputs = plan_inputs(config.resolved(K), reference.store)
    made = make_loss(config.resolved(K), find_sampling(config).prior(inputs), reference.counts)
    of_class = torch.ones(K) if made.class_weight is None else torch.from_numpy(made.class_weight)
    smoothing = torch.zeros(K) if made.smoothing is None else torch.from_numpy(made.smoothing)
    for t in range(ITERATIONS):
        target = torch.tensor(reference.targets(t)).float()
        log_p = linear(torch.tensor(reference.batch(t)[0]).float(), weight, bias).log_softmax(1)
        of_label = -log_p * (1 - smoothing) - smoothing * log_p.mean(1, keepdim=True)
        if loss == "focal":
            of_label = of_label * (1 - log_p.exp()) ** 2
        each = target * of_class
        n_samples = each.sum() if loss == "re-weighted" else BATCH
        sgd.zero_grad()
        ((each * of_label).sum() / n_samples).backward()
        sgd.step()
    found = torch.load(run.path / "head.pt", weights_only=True)
    torch.testing.assert_close(found["weight"], weight.detach(), rtol=2e-3, atol=2e-3)


def prior_by_counting(config: FinetuneConfig, n_iterations: int = 4000) -> np.ndarray:
    """Shares of the classes in the labels of many batches, as they are drawn."""
    config = config.resolved(K)
    inputs = plan_inputs(config, FeatureStore(Path(config.store)))
    plan = find_sampling(config).draw(inputs, 0, n_iterations)
    target = np.bincount(inputs.label[plan.row].ravel(), minlength=K).astype(np.float64)
    if hasattr(plan.mix, "label_share"):
        given = (1 - plan.mix.label_share).ravel()
        target -= np.bincount(inputs.label[plan.mix.row].ravel(), given, K)
        target += np.bincount(inputs.label[plan.mix.partner].ravel(), given, K)
    return target / target.sum()


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("classes", ["tail", "all"])
@pytest.mark.parametrize("method", ["fsa", "h2t", "mixup", "remix"])
def test_the_prior_of_a_loss_is_what_is_drawn(feature_store, method, classes, sampling):
    """Halves of their own of fsa apart, whose rows are another plan's."""
    changes = {"mix_classes": classes, "mix_share": 0.75, "alpha": 0.4}
    config = replace(asked(feature_store, method, sampling, **changes), batch_size=128)
    resolved = config.resolved(K)
    inputs = plan_inputs(resolved, FeatureStore(feature_store))
    prior = find_sampling(resolved).prior(inputs)
    assert prior.sum() == pytest.approx(1)
    # 512,000 labels, and up to 1 / 128 for a sample that is its own partner
    np.testing.assert_allclose(prior_by_counting(config), prior, rtol=0.02, atol=6e-4)


@pytest.mark.parametrize("alpha", [1e-3, 0.2, 1.0, 4.0, 1e6])
def test_shares_are_spread_as_beta_says(alpha):
    quantiles = share_quantiles(alpha)
    assert (np.diff(quantiles) >= 0).all()
    np.testing.assert_array_equal(quantiles + quantiles[::-1], 1)
    drawn = np.interp(np.random.default_rng(0).random(20_000), np.linspace(0, 1, len(quantiles)), quantiles)
    inside = drawn[
        (drawn > 1e-300) & (drawn < 1 - 1e-12)
    ]  # float64 ends there; with a small α much lies beyond
    between = beta(alpha, alpha).cdf([inside.min(), inside.max()])
    assert (
        kstest(beta(alpha, alpha).cdf(inside), uniform(between[0], between[1] - between[0]).cdf).pvalue > 1e-3
    )
