"""Every method of Phase II compared with another implementation: autograd, scikit-learn, a formula."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy, linear

from finetune.config import FinetuneConfig
from finetune.methods.registry import METHODS
from finetune.sampling.philox import CounterRNG
from finetune.train import finetune
from finetune.training.inputs import head_options, plan_inputs
from store.reader import FeatureStore
from store.storage.location import locate

ITERATIONS = 40
PLAIN = {
    "tau": 1.0,
    "loss": "ce",
    "lr": 0.001,
    "schedule": "constant",
    "weight_decay": 0.0,
    "max_norm": None,
    "max_norm_every": "step",
    "init": "phase1",
}
COSINE = PLAIN | {"lr": 0.1, "schedule": "cosine"}
COMPUTED = ("tau-norm", "ncm", "logit-adjustment", "multiplicative-adjustment", "lda")
OWN = dict.fromkeys(("fsa", "no-aug", "plain", *COMPUTED), PLAIN)
OWN |= {name: PLAIN | {"loss": name} for name in ("balanced-softmax", "class-balanced", "focal")}
OWN["marc"] = COSINE | {"lr": 0.05, "weight_decay": 5e-4, "loss": "re-weighted"}
OWN["fslwf"] = COSINE | {"lr": 0.01, "weight_decay": 5e-4}
OWN["disalign"] = COSINE | {"weight_decay": 5e-4, "loss": "re-weighted"}
OWN["mislas"] = COSINE | {"weight_decay": 2e-4, "loss": "label-aware-smoothing"}
OWN |= dict.fromkeys(("h2t", "mixup", "remix", "tailcalib"), COSINE | {"lr": 0.02, "weight_decay": 5e-4})
OWN["isda"] = OWN["h2t"] | {"loss": "isda"}
OWN["fsa+balanced-softmax"] = OWN["balanced-softmax"] | {"tau": 1.25, "weight_decay": 0.01}
OWN |= {"lws": COSINE} | dict.fromkeys(("crt", "oltr"), COSINE | {"init": "fresh", "weight_decay": 5e-4})
OWN["weight-balancing"] = COSINE | {
    "lr": 0.01,
    "loss": "class-balanced-bce",
    "weight_decay": 0.1,
    "max_norm": "relative",
    "max_norm_every": "epoch",
}


@pytest.fixture
def config(feature_store, tmp_path) -> FinetuneConfig:
    return FinetuneConfig(
        str(feature_store), str(tmp_path / "run"), iterations=ITERATIONS, device="cpu", method="fsa"
    )


def opened(config: FinetuneConfig) -> FeatureStore:
    return FeatureStore(locate(config.store))


def head_of(config: FinetuneConfig, quiet) -> list[np.ndarray]:
    """Weight and bias of a run's head."""
    run = finetune(config, quiet)
    head = torch.load(run.path / "head.pt", weights_only=True)
    return [head["weight"].numpy(), head["bias"].numpy()]


def test_what_is_each_methods_own_is_known_here():
    assert METHODS.keys() == OWN.keys()


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_given_is_the_methods_own(method):
    resolved = FinetuneConfig("", method=method).resolved(10)
    assert {name: getattr(resolved, name) for name in PLAIN} == OWN[method]


EVERY_STEP = {"max_norm_every": "step"}
OTHER = {
    "tau": 0.0,
    "loss": "focal",
    "lr": 3.0,
    "schedule": "cosine",
    "weight_decay": 0.0,
    "max_norm": 7.0,
    "init": "fresh",
}


GIVEN = [(m, name) for m in METHODS for name in OTHER if (m, name) != ("fslwf", "loss")]  # which it refuses


@pytest.mark.parametrize(("method", "name"), GIVEN)
def test_what_is_given_is_taken(method, name):
    """Even a weight decay of 0, which is not a missing one."""
    resolved = FinetuneConfig("", method=method, **{name: OTHER[name]}).resolved(10)
    assert {n: getattr(resolved, n) for n in PLAIN} == OWN[method] | {name: OTHER[name]}


def class_distribution(config: FinetuneConfig, counts: np.ndarray) -> np.ndarray:
    """Class distribution of a method's batches, from its description; classes go from large to small."""
    k, prior = len(counts), counts / counts.sum()
    of_method = dict.fromkeys(
        ("crt", "lws", "h2t", "mixup", "mislas", "tailcalib", "isda", "oltr"), "balanced"
    )
    of_method |= {"fsa": "halves", "no-aug": "halves"}
    sampling = config.sampling or of_method.get(config.method, "uniform")
    if sampling == "balanced":
        return np.full(k, 1 / k)
    if sampling == "uniform":
        return prior
    h = int(np.searchsorted(np.cumsum(prior), config.head_ratio)) + 1
    tail = np.full(k - h, 1 / (k - h)) if config.tail_draw == "classes" else prior[h:] / prior[h:].sum()
    return np.concatenate([prior[:h] / prior[:h].sum(), tail]) / 2


def labels_of_remix(prior: np.ndarray, counts: np.ndarray, n_head: int | None) -> np.ndarray:
    """Mean labels, all 128 rows mixed with a share λ that is uniform: ∫ λ is 3/8 above 1/2, 1/8 below.

    A row's partner is itself once in 128 times; in halves, `n_head` classes are those of one half.
    """
    mean = np.zeros(len(prior))
    for own, other in np.ndindex(len(prior), len(prior)):
        share = 3 / 8 if counts[own] >= 3 * counts[other] else 1 / 2
        share = 1 / 2 + 1 / 8 if counts[other] >= 3 * counts[own] else share
        is_alike = n_head is None or (own < n_head) == (other < n_head)
        partner = prior[other] - is_alike * prior[other] * (1 if n_head is None else 2) / 128
        partner += (own == other) / 128
        mean[own] += prior[own] * partner * share
        mean[other] += prior[own] * partner * (1 - share)
    return mean


@pytest.mark.parametrize("tail_draw", ["samples", "classes"])
@pytest.mark.parametrize("loss", ["balanced-softmax", "class-balanced"])
@pytest.mark.parametrize("sampling", [None, "uniform", "balanced", "halves"])
@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.samplings])
def test_losses_correct_for_what_is_drawn_and_not_for_the_data(config, method, loss, tail_draw, sampling):
    store = opened(config)
    counts = np.bincount(store.read("train").label)
    assert (np.diff(counts) <= 0).all()
    config = replace(config, method=method, loss=loss, tail_draw=tail_draw, beta=0.99, sampling=sampling)
    config = config.resolved(10)
    made = head_options(config, store, plan_inputs(config, store)).loss
    prior = class_distribution(config, counts)
    if method == "remix":
        share = np.cumsum(counts) / counts.sum()
        halves = int(np.searchsorted(share, config.head_ratio)) + 1 if sampling == "halves" else None
        prior = labels_of_remix(prior, counts, halves)
    if loss == "balanced-softmax":
        np.testing.assert_allclose(made.shift, config.tau * np.log(prior), rtol=1e-6)
    else:
        weight = 0.01 / (1 - 0.99 ** (counts.sum() * prior))
        np.testing.assert_allclose(made.class_weight, 10 * weight / weight.sum(), rtol=1e-6)


def loss_of(config: FinetuneConfig, logits, label, prior: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """As in the papers, by their names in docs/methods.md."""
    n_samples = int(counts.sum())
    if config.loss == "balanced-softmax":
        odds = prior**config.tau * logits.exp()
        return -(odds[range(len(label)), label] / odds.sum(1)).log().mean()
    if config.loss == "class-balanced":
        weight = (1 - config.beta) / (1 - config.beta ** (n_samples * prior))
        weight = weight / weight.sum() * len(prior)
        by_row = weight[label] * cross_entropy(logits, label, reduction="none")
        return by_row.sum() / (weight[label].sum() if config.weighted_mean == "weights" else len(label))
    if config.loss == "re-weighted":
        weight = (1 / prior) ** config.frequency_power
        return cross_entropy(logits, label, weight / weight.sum() * len(prior))
    by_row = cross_entropy(logits, label, reduction="none")
    if config.loss == "label-aware-smoothing":
        share = (counts - counts.min()) / (counts.max() - counts.min())
        most, least = config.smooth_head, config.smooth_tail
        spread = (least + (most - least) * (torch.pi * share / 2).sin())[label]
        return ((1 - spread) * by_row - spread * logits.log_softmax(1).mean(1)).mean()
    if config.loss == "focal":
        return ((1 - logits.softmax(1)[range(len(label)), label]) ** config.focal_gamma * by_row).mean()
    return by_row.mean()


def trained_by_autograd(config: FinetuneConfig) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The layer before and after torch.optim.SGD on the plan's rows, in double precision."""
    store = opened(config)
    train, config = store.read("train"), config.resolved(len(store.class_names))
    pooled, label = torch.from_numpy(train.pooled).double(), torch.from_numpy(train.label).long()
    rows = METHODS[config.method].sampling.draw(plan_inputs(config, store), 0, config.iterations).row
    counts = np.bincount(train.label)
    prior = torch.from_numpy(class_distribution(config, counts))

    weight, bias = (torch.from_numpy(part).double() for part in store.classifier)
    if config.init == "fresh":
        numbers = CounterRNG(config.seed).uniform("fresh weight", 0, 1, weight.numel() + bias.numel())[0]
        values = torch.from_numpy((2 * numbers - 1) / weight.shape[1] ** 0.5)
        weight, bias = values[: weight.numel()].reshape(weight.shape), values[weight.numel() :]
    scale, margin, norm = torch.ones_like(bias), torch.zeros_like(bias), weight.norm(dim=1)
    before = [weight.numpy().copy(), bias.numpy().copy()]
    of_method = {"lws": [scale], "marc": [scale, margin], "mislas": [scale]}
    groups = [{"params": of_method.get(config.method, [weight, bias])}]
    if config.method == "mislas":
        groups.append({"params": [weight, bias], "lr": config.fc_lr_share * config.lr})
    for group in groups:
        for part in group["params"]:
            part.requires_grad_()
    optimizer = torch.optim.SGD(groups, config.lr, config.momentum, weight_decay=config.weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.iterations)
    for row in torch.from_numpy(rows):
        logits = linear(pooled[row], weight, bias) * scale + margin * norm
        optimizer.zero_grad()
        loss_of(config, logits, label[row], prior, torch.from_numpy(counts)).backward()
        optimizer.step()
        if config.schedule == "cosine":
            scheduler.step()
        if config.max_norm is not None:  # a number; for relative see test_finetune_weight_balancing.py
            with torch.no_grad():  # MaxNorm of Alshammari et al. 2022: a projection of every class's weight
                for of_class in weight:
                    if of_class.norm() > config.max_norm:
                        of_class *= config.max_norm / of_class.norm()
    after = [(weight * scale[:, None]).detach().numpy(), (bias * scale + margin * norm).detach().numpy()]
    return before, after


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("plain", {}),
        ("plain", {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.01, "batch_size": 31}),
        ("no-aug", {}),
        ("no-aug", {"loss": "balanced-softmax", "tail_draw": "samples", "lr": 0.1}),
        ("crt", {}),
        ("crt", {"init": "phase1", "schedule": "constant", "loss": "balanced-softmax"}),
        ("balanced-softmax", {}),
        ("balanced-softmax", {"tau": 1.7, "lr": 0.1}),
        ("class-balanced", {}),
        ("class-balanced", {"beta": 0.99, "weighted_mean": "weights", "lr": 0.1}),
        ("focal", {}),
        ("focal", {"focal_gamma": 2.5, "lr": 0.1}),
        ("weight-balancing", {"loss": "class-balanced", "weight_decay": 5e-3, "max_norm": 0.9} | EVERY_STEP),
        ("weight-balancing", {"loss": "ce", "max_norm": 1.0, "lr": 0.1, "schedule": "constant"} | EVERY_STEP),
        ("lws", {}),
        ("lws", {"loss": "class-balanced", "weight_decay": 0.01, "schedule": "constant"}),
        ("marc", {}),
        ("marc", {"loss": "balanced-softmax", "lr": 0.5, "init": "fresh"}),
        ("mislas", {}),
        ("mislas", {"fc_lr_share": 0.0, "smooth_head": 0.7, "smooth_tail": 0.1, "batch_size": 31}),
        ("plain", {"loss": "re-weighted", "frequency_power": 0.5, "lr": 0.1}),
        ("plain", {"loss": "label-aware-smoothing", "smooth_head": 1.0, "lr": 0.1, "weight_decay": 0.01}),
    ],
    ids=str,
)
def test_a_run_equals_autograd_and_torch_sgd(config, method, given, quiet):
    config = replace(config, method=method, seed=3, **given)
    before, expected = trained_by_autograd(config)
    found = head_of(config, quiet)
    moved = max(np.abs(b - e).max() for b, e in zip(before, expected, strict=True))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-3 * moved)


def test_max_norm_spares_the_bias_and_the_short(config, quiet):
    """The bound lies between the lengths of the classes' weights, so that some are cut and some are not."""
    config = replace(config, method="weight-balancing", lr=1e-9, weight_decay=0.0)
    weight, bias = opened(config).classifier
    length = np.linalg.norm(weight, axis=1)
    bound = float(np.median(length))
    found = head_of(replace(config, max_norm=bound), quiet)
    np.testing.assert_allclose(found[0], weight * np.minimum(1, bound / length)[:, None], rtol=1e-5)
    np.testing.assert_allclose(found[1], bias, rtol=1e-5)


@pytest.mark.parametrize("method", ["plain", "crt", "class-balanced"])
def test_a_long_run_ends_at_the_optimum_that_scikit_learn_finds(config, method, quiet):
    """A sampler or loss with another class distribution has another optimum.

    Weight decay λ makes the optimum unique: C = 1 / (N · λ), with the bias as a weight like the others.
    """
    decay = 0.02
    more = {"batch_size": 256, "lr": 0.2, "schedule": "cosine", "weight_decay": decay, "beta": 0.99}
    config = replace(config, method=method, iterations=2500, eval_every=2500, **more)
    train = opened(config).read("train")
    label, n = train.label, len(train.label)
    counts = np.bincount(label)
    of_class = {
        "plain": np.ones(10),
        "crt": n / (10 * counts),
        "class-balanced": 10 / (1 - 0.99**counts) / (1 / (1 - 0.99**counts)).sum(),
    }
    x = np.column_stack([train.pooled, np.ones(n)]).astype(np.float64)

    def objective(layer: np.ndarray) -> float:
        log_p = torch.from_numpy(x @ layer.T).log_softmax(1).numpy()[np.arange(n), label]
        return -(of_class[method][label] * log_p).mean() + decay / 2 * (layer**2).sum()

    solver = LogisticRegression(C=1 / (n * decay), fit_intercept=False, tol=1e-8, max_iter=10_000)
    best = solver.fit(x, label, sample_weight=of_class[method][label]).coef_
    found = np.column_stack(head_of(config, quiet))
    assert objective(best) <= objective(found) <= 1.001 * objective(best)
    np.testing.assert_allclose(found, best, atol=0.05 * np.abs(best).max())
