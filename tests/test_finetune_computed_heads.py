"""Heads computed in one pass over the features, each against its formula or scikit-learn."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import refuse, succeed
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestCentroid
from threadpoolctl import threadpool_limits

from finetune.config import FinetuneConfig
from finetune.heads.posthoc import Trained, linear_discriminant, multiplicative_adjustment
from finetune.train import finetune
from finetune.training.inputs import posthoc_layer
from store.errors import UserError
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def made(counts: list[int], n_channels: int = 5, seed: int = 0, **changes) -> Trained:
    """Classes around means of their own, with a covariance of their own."""
    random, label = np.random.default_rng(seed), np.repeat(np.arange(len(counts)), counts)
    mean = 2 * random.normal(size=(len(counts), n_channels))
    spread = random.normal(size=(len(counts), n_channels, n_channels))
    pooled = np.stack([mean[c] + spread[c] @ random.normal(size=n_channels) for c in label])
    weight = random.normal(size=(len(counts), n_channels)).astype(np.float32)
    values = {"tau": 1.0, "distance": "euclidean", "shrinkage": 0.1} | changes
    bias = random.normal(size=len(counts)).astype(np.float32)
    return Trained(weight, bias, pooled.astype(np.float32), label, np.array(counts), **values)


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("counts", [[60, 30, 9, 2, 1], [40, 3]])
def test_the_linear_discriminant_is_its_formula(counts, shrinkage):
    """Each class counts alike in the covariance, whatever its size; a single image adds nothing to it."""
    trained = made(counts, shrinkage=shrinkage)
    pooled, k = trained.pooled.astype(np.float64), len(counts)
    mean = np.stack([pooled[trained.label == c].mean(axis=0) for c in range(k)])
    around = [pooled[trained.label == c] - mean[c] for c in range(k)]
    covariance = sum(part.T @ part / len(part) for part in around) / k
    n = len(covariance)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / n * np.eye(n)
    x = np.random.default_rng(1).normal(size=(50, n)) * 3
    distance = [np.einsum("nc,cd,nd->n", x - m, np.linalg.inv(covariance), x - m) for m in mean]
    expected = -np.stack(distance, axis=1) / 2
    weight, bias = linear_discriminant(trained)
    assert (weight.dtype, bias.dtype) == (np.float32, np.float32)
    found = x @ weight.T.astype(np.float64) + bias
    against_first = [scores - scores[:, :1] for scores in (found, expected)]  # all scores may shift alike
    np.testing.assert_allclose(*against_first, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shrinkage", [0.0, 0.05, 0.5])
def test_the_linear_discriminant_is_scikit_learns(shrinkage, monkeypatch):
    monkeypatch.setattr("finetune.heads.posthoc.ROWS_AT_ONCE", 7)
    trained = made([50, 20, 8, 5], n_channels=6, shrinkage=shrinkage)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=np.full(4, 0.25))
    oracle.fit(trained.pooled.astype(np.float64), trained.label)
    weight, bias = linear_discriminant(trained)
    np.testing.assert_allclose(weight, oracle.coef_, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(bias - bias[0], oracle.intercept_ - oracle.intercept_[0], rtol=1e-4, atol=1e-4)


def test_fewer_rows_than_channels_are_enough():
    """Without shrinkage the covariance has no inverse; rounding would be divided by instead of spread."""
    trained = made([9, 8, 7], n_channels=40, shrinkage=0.0)
    weight, bias = linear_discriminant(trained)
    found = (trained.pooled @ weight.T + bias).argmax(axis=1)
    assert (found == trained.label).mean() > 0.8
    assert np.abs(weight).max() < 100
    spread = np.concatenate([part - part.mean(axis=0) for part in np.split(trained.pooled, [9, 17])])
    unseen = np.linalg.svd(spread.astype(np.float64))[2][21:]  # 24 rows less a mean of each class
    np.testing.assert_allclose(weight @ unseen.T, 0, atol=1e-3)


def test_images_that_are_all_alike_are_one_line():
    trained = made([1, 1, 1])
    with pytest.raises(UserError, match=r"^--method lda: images of a class all have the same features"):
        linear_discriminant(trained)


def test_its_bits_do_not_depend_on_the_number_of_threads():
    trained = made([900, 300, 100], n_channels=200)
    layers = []
    for n in (1, 2):
        with threadpool_limits(n, "blas"):
            layers.append(linear_discriminant(trained))
    for one, two in zip(*layers, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0, -1.0])
def test_multiplicative_adjustment_is_its_formula(tau):
    trained = made([60, 30, 9, 1], tau=tau)
    x = np.random.default_rng(1).normal(size=(50, 5))
    logits = x @ trained.weight.T.astype(np.float64) + trained.bias
    weight, bias = multiplicative_adjustment(trained)
    expected = logits * np.array([0.6, 0.3, 0.09, 0.01]) ** -tau
    np.testing.assert_allclose(x @ weight.T.astype(np.float64) + bias, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["lda", "multiplicative-adjustment", "logit-adjustment", "ncm"])
def test_a_class_without_images_is_named(method, monkeypatch):
    trained = made([5, 0, 3])
    split = SimpleNamespace(
        pooled=trained.pooled, label=trained.label, class_counts=lambda _: trained.class_counts
    )
    layer, names = (trained.weight, trained.bias), ["cat", "dog", "owl"]
    store = SimpleNamespace(classifier=layer, class_names=names, read=lambda _: split)
    with pytest.raises(UserError, match=f"^--method {method}: .*, for class dog has no training rows"):
        posthoc_layer(FinetuneConfig("", method=method).resolved(3), store)


def test_the_command_line_computes_both(feature_store):
    command = ["--store", feature_store, "--device", "cpu"]
    grid = ["--grid", "shrinkage=0.01,0.5", "--grid", "method=lda,multiplicative-adjustment"]
    told = succeed("sweep", *command, "--out", "sweep", "--select-on", "test", *grid).stderr
    assert "changes nothing" not in told
    succeed("finetune", *command, "--out", "one", "--method", "lda", "--shrinkage", 0.5)
    head = torch.load("one/head.pt", weights_only=True)
    train, layer = (store := FeatureStore(feature_store)).read("train"), store.classifier
    counts = train.class_counts(len(store.class_names))
    expected = linear_discriminant(Trained(*layer, train.pooled, train.label, counts, 1.0, "euclidean", 0.5))
    np.testing.assert_array_equal(head["weight"].numpy(), expected[0])
    refuse("finetune", *command, "--out", "r", "--method", "lda", "--shrinkage", 1.5, says=["from 0 to 1"])


@pytest.fixture
def config(feature_store) -> FinetuneConfig:
    return FinetuneConfig(str(feature_store), "run", device="cpu")


def predictions(config: FinetuneConfig, quiet) -> np.ndarray:
    """Classes that a run's head predicts for the test split."""
    run = finetune(config, quiet)
    return pd.read_csv(run.path / "predictions.csv")["prediction"].to_numpy()


def arrays(config: FinetuneConfig) -> tuple[np.ndarray, ...]:
    """Phase I's weight and bias, training features and labels, and test features, in double precision."""
    store = FeatureStore(Path(config.store))
    train, test = store.read("train"), store.read("test")
    weight, bias = (part.astype(np.float64) for part in store.classifier)
    return weight, bias, train.pooled.astype(np.float64), train.label, test.pooled.astype(np.float64)


def assert_highest(found: np.ndarray, scores: np.ndarray) -> None:
    """Each row's class has the highest score; the head computes in float32, which may swap two of a tie."""
    lag = scores.max(1) - np.take_along_axis(scores, found[:, None], 1)[:, 0]
    assert (lag <= 1e-6 * np.abs(scores).max(1)).all()
    assert (lag == 0).mean() > 0.98


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0, -1.0])
def test_logit_adjustment_is_its_formula(config, tau, quiet):
    weight, bias, _, label, x = arrays(config)
    z = x @ weight.T + bias
    expected = z - tau * np.log(np.bincount(label) / len(label))
    assert_highest(predictions(replace(config, method="logit-adjustment", tau=tau), quiet), expected)
    assert (expected.argmax(1) == z.argmax(1)).all() == (tau == 0)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_tau_norm_is_its_formula(config, tau, quiet):
    weight, _, _, _, x = arrays(config)
    expected = np.stack([x @ w / np.sqrt((w**2).sum()) ** tau for w in weight], axis=1)
    assert_highest(predictions(replace(config, method="tau-norm", tau=tau), quiet), expected)


def test_nearest_class_mean_is_scikit_learns(config, quiet):
    _, _, pooled, label, x = arrays(config)
    reference = NearestCentroid(metric="euclidean").fit(pooled, label)
    distance = ((x[:, None] - reference.centroids_) ** 2).sum(2)
    np.testing.assert_array_equal(distance.argmin(1), reference.predict(x))
    assert_highest(predictions(replace(config, method="ncm"), quiet), -distance)


def test_nearest_class_mean_by_the_cosine(config, quiet):
    _, _, pooled, label, x = arrays(config)
    means = [pooled[label == c].mean(0) for c in range(10)]
    cosine = [x @ m / np.sqrt((x**2).sum(1) * (m**2).sum()) for m in means]
    found = predictions(replace(config, method="ncm", distance="cosine"), quiet)
    assert_highest(found, np.stack(cosine, axis=1))
