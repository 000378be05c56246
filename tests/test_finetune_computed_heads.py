"""Heads computed in one pass over the features: linear discriminant, multiplicative adjustment."""

import numpy as np
import pytest
import torch
from bad_input import refuse, succeed
from threadpoolctl import threadpool_limits

from finetune.heads.posthoc import Trained, linear_discriminant, multiplicative_adjustment
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


@pytest.mark.filterwarnings("error")
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


def test_a_class_without_images_has_no_discriminant():
    trained = made([5, 0, 3])
    assert np.isnan(linear_discriminant(trained)[0]).all()


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
