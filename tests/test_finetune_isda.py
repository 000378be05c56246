"""Implicit semantic data augmentation: its loss beside autograd, and beside samples that are really drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import refuse
from batches_by_hand import BATCH, ITERATIONS, K, Reference, asked
from torch.nn.functional import cross_entropy, linear

from finetune.heads.losses import isda
from finetune.heads.options import HeadOptions
from finetune.heads.stacked import StackedHeads, padded
from finetune.train import finetune

pytestmark = pytest.mark.usefixtures("in_tmp_path")
CPU = torch.device("cpu")


def logits_of(x, label, weight, bias, variance, r) -> torch.Tensor:
    """z_k + r/2 · (w_k − w_y)ᵀ Σ_y (w_k − w_y), one pair of classes after the other."""
    rows = []
    for one, y in zip(x, label.tolist(), strict=True):
        shifts = [(w - weight[y]) @ torch.diag(variance[y]) @ (w - weight[y]) for w in weight]
        rows.append(linear(one, weight, bias) + r / 2 * torch.stack(shifts))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("sampling", "given"),
    [
        (None, {}),
        ("uniform", {"tau": 1.5, "isda_strength": 2.0}),
        ("uniform", {"tau": 0.0, "schedule": "constant", "weight_decay": 0.01, "momentum": 0.5}),
        ("halves", {"isda_strength": 0.0}),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["isda", "h2t"])
def test_a_run_with_isda_equals_autograd(feature_store, quiet, method, sampling, given):
    options = {"loss": "isda", "lr": 0.05, "schedule": "cosine"} | given
    config = asked(feature_store, method, sampling, **options)
    run, reference, resolved = finetune(config, quiet), Reference(config), config.resolved(K)
    before, rows = reference.store.classifier, reference.store.read("train").pooled.astype(np.float64)
    weight, bias = (torch.tensor(part.astype(np.float64), requires_grad=True) for part in before)
    sgd = torch.optim.SGD([weight, bias], 0.05, config.momentum, weight_decay=resolved.weight_decay)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, ITERATIONS)
    label = reference.label
    variance = torch.tensor(np.stack([rows[label == c].var(0, ddof=1) for c in range(K)]))
    prior = {"uniform": reference.counts / len(label), None: np.full(K, 1 / K)}.get(sampling)
    if prior is None:
        head = np.arange(K) < reference.n_head
        prior = np.where(head, reference.counts / (2 * reference.counts[head].sum()), 0.5 / (~head).sum())
    for t in range(ITERATIONS):
        if method == "isda":
            row = reference.rows(t, 0)
            features, of_rows = rows[row], label[row]
        else:
            features, of_rows, _ = reference.batch(t)
        of_rows = torch.tensor(of_rows).long()
        r = resolved.isda_strength * t / ITERATIONS
        logits = logits_of(torch.tensor(features), of_rows, weight, bias, variance, r)
        sgd.zero_grad()
        cross_entropy(logits + resolved.tau * torch.tensor(prior).log(), of_rows).backward()
        sgd.step()
        if options["schedule"] == "cosine":
            cosine.step()
    found = torch.load(run.path / "head.pt", weights_only=True)
    after = {"weight": weight.detach().numpy(), "bias": bias.detach().numpy()}
    for of_phase1, (name, expected) in zip(before, after.items(), strict=True):
        moved = abs(expected - of_phase1).max()
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-4, atol=2e-3 * moved)


def head(variance: np.ndarray, strength: float, seed: int = 0, n_iterations: int = 4) -> HeadOptions:
    rng, n_classes = np.random.default_rng(seed), len(variance)
    weight = rng.normal(size=variance.shape).astype(np.float32)
    loss = isda(rng.dirichlet(np.ones(n_classes)), variance, strength, 1.0)
    return HeadOptions(weight, np.zeros(n_classes, np.float32), loss, 0.1, 0.9, n_iterations=n_iterations)


def test_the_loss_bounds_that_of_samples_which_are_drawn():
    """At the last of many iterations r is λ: the bound of the mean over N(x, λ Σ_y), above the row's loss."""
    rng = np.random.default_rng(0)
    variance, n = rng.random((3, 5)) * 0.1, 1000
    options = head(variance, 1.0, n_iterations=n)
    x, label = torch.tensor(rng.normal(size=(1, 8, 5))).float(), torch.tensor([[0, 1, 2, 0, 1, 2, 0, 1]])
    of_isda = StackedHeads([options], CPU).train_on(padded(x), label, n - 1)[0, 0]
    drawn = x + torch.tensor(rng.normal(size=(20_000, 8, 5)) * np.sqrt(variance)[label[0]]).float()
    logits = linear(drawn, torch.tensor(options.weight)) + torch.tensor(options.loss.shift)
    mean = cross_entropy(logits.flatten(0, 1), label[0].repeat(20_000))
    without = cross_entropy(
        linear(x[0], torch.tensor(options.weight)) + torch.tensor(options.loss.shift), label[0]
    )
    assert mean < of_isda
    assert without < mean


@pytest.mark.parametrize("shape", [(3, 7), (10, 64), (100, 64), (130, 33)])
def test_a_head_in_a_stack_is_the_same_as_alone(shape):
    rng = np.random.default_rng(1)
    variance = rng.random(shape) / shape[1]
    heads = [head(variance, strength, seed) for seed, strength in enumerate((0.0, 0.5, 2.0))]
    x = padded(torch.tensor(rng.normal(size=(4, 128, shape[1]))).float())
    label = torch.tensor(rng.integers(0, shape[0], (4, 128)))
    stacked = StackedHeads(heads, CPU)
    losses = stacked.train_on(x, label, 0)
    for i, options in enumerate(heads):
        alone = StackedHeads([options], CPU)
        assert torch.equal(alone.train_on(x, label, 0)[:, 0], losses[:, i])
        assert torch.equal(alone.weight[0], stacked.weight[i])
    assert not torch.equal(stacked.weight[0], stacked.weight[1])


def test_resumed_in_the_middle_r_goes_on_where_it_was():
    variance, rng = np.ones((3, 7)), np.random.default_rng(2)
    x, label = torch.tensor(rng.normal(size=(4, 16, 7))).float(), torch.tensor(rng.integers(0, 3, (4, 16)))
    whole, first, second = (StackedHeads([head(variance, 1.0)], CPU) for _ in range(3))
    whole.train_on(padded(x), label, 0)
    first.train_on(padded(x[:2]), label[:2], 0)
    second.load_state(first.state())
    second.train_on(padded(x[2:]), label[2:], 2)
    assert torch.equal(whole.weight, second.weight)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("lws", "does not train an FC layer alone"),
        ("mislas", "does not train an FC layer alone"),
        ("oltr", "does not train an FC layer alone"),
        ("mixup", "has samples of two labels"),
    ],
)
def test_methods_that_cannot_have_it(feature_store, method, reason):
    command = ["finetune", "--store", feature_store, "--out", "r", "--device", "cpu", "--batch-size", BATCH]
    refuse(*command, "--method", method, "--loss", "isda", says=[f"--loss isda: --method {method} {reason}"])
    assert not Path("r").exists()


def test_strength_changes_a_head_of_isda_and_nothing_else(feature_store, quiet):
    config = asked(feature_store, "isda", None)
    runs = [finetune(replace(config, isda_strength=s, out=f"s{s}"), quiet) for s in (0.0, 0.5)]
    heads = [torch.load(run.path / "head.pt", weights_only=True)["weight"] for run in runs]
    assert not torch.equal(*heads)
