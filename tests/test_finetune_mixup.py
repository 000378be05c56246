"""Samples with two labels (mixup, remix): their loss, the prior of batches, how shares are spread."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import refuse
from batches_by_hand import BATCH, ITERATIONS, SAMPLINGS, K, Reference, asked
from scipy.stats import beta, kstest, uniform
from torch.nn.functional import linear

from finetune.config import FinetuneConfig
from finetune.heads.losses import balanced_softmax
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


@pytest.mark.parametrize(("batch_size", "share"), [(128, 0.75), (8, 0.4), (2, 1.0)])
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("classes", ["tail", "all", "fill"])
@pytest.mark.parametrize("method", ["mixup", "remix"])
def test_the_prior_of_a_loss_is_what_is_drawn(feature_store, method, classes, sampling, batch_size, share):
    """Of small batches too: a row often is its own partner, and three places are one tail, two head."""
    changes = {"mix_classes": classes, "mix_share": share, "alpha": 0.4}
    config = replace(asked(feature_store, method, sampling, **changes), batch_size=batch_size)
    resolved = config.resolved(K)
    inputs = plan_inputs(resolved, FeatureStore(feature_store))
    prior = find_sampling(resolved).prior(inputs)
    assert prior.sum() == pytest.approx(1)
    found = prior_by_counting(config, n_iterations=400_000 // batch_size)
    np.testing.assert_allclose(found, prior, rtol=0.015, atol=6e-4)


@pytest.mark.parametrize("alpha", [1e-3, 0.2, 1.0, 4.0, 32.0])
def test_shares_are_spread_as_beta_says(alpha):
    quantiles = share_quantiles(alpha)
    assert (np.diff(quantiles) >= 0).all()
    np.testing.assert_array_equal(quantiles + quantiles[::-1], 1)
    low, high = quantiles[:-1], quantiles[1:]  # between them, shares are uniform
    variance = ((low**2 + low * high + high**2) / 3).mean() - 1 / 4
    assert variance == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.011)
    drawn = np.interp(np.random.default_rng(0).random(20_000), np.linspace(0, 1, len(quantiles)), quantiles)
    inside = drawn[
        (drawn > 1e-300) & (drawn < 1 - 1e-12)
    ]  # float64 ends there; with a small α much lies beyond
    between = beta(alpha, alpha).cdf([inside.min(), inside.max()])
    assert (
        kstest(beta(alpha, alpha).cdf(inside), uniform(between[0], between[1] - between[0]).cdf).pvalue > 1e-3
    )


@pytest.mark.parametrize("method", ["h2t", "mixup", "remix", "fsa", "tailcalib"])
def test_windows_in_which_nothing_is_mixed(feature_store, quiet, method):
    """Tail rows are rare in uniform batches; a window may have none at the places that are mixed."""
    changes = {"mix_classes": "tail", "mix_share": 0.1, "loss": "ce"}
    config = replace(asked(feature_store, method, "uniform", **changes), iterations=40, eval_every=40)
    heads = []
    for window in (1, 64):
        run = finetune(replace(config, window=window, out=f"w{window}"), quiet)
        heads.append(torch.load(run.path / "head.pt", weights_only=True)["weight"])
    assert torch.equal(*heads)


def test_halves_that_would_mix_nothing_are_refused(feature_store):
    command = ["finetune", "--store", feature_store, "--out", "r", "--device", "cpu", "--sampling", "halves"]
    few = ["--mix-classes", "tail", "--batch-size", 8, "--mix-share", 0.1]
    refuse(*command, "--method", "mixup", *few, says=["--mix-share 0.1: replaces none of 8 rows", "to 0.25"])
    assert not Path("r").exists()


@pytest.mark.parametrize("tau", [0.0, 1.0, -1.0])
def test_a_class_that_is_never_drawn_takes_no_part_in_balanced_softmax(tau):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shift = balanced_softmax(np.array([0.75, 0.0, 0.25]), tau).shift
    np.testing.assert_allclose(shift[[0, 2]], tau * np.log([0.75, 0.25]), rtol=1e-6)
    assert shift[1] == (-np.inf if tau else 0)
