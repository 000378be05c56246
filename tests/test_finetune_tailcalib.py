"""Gaussians around rows and their nearest class means: moments, single rows, and the published code."""

from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import refuse
from batches_by_hand import K, asked
from hypothesis import given, settings
from hypothesis import strategies as st
from tailcalib import tailcalib
from threadpoolctl import threadpool_limits

from finetune.config import FinetuneConfig
from finetune.loading.features import Features
from finetune.methods.registry import find_sampling
from finetune.mixing.gaussians import ClassMoments, ClassNoise
from finetune.mixing.tailcalib import Calibrated, calibrated
from finetune.sampling.head_tail import HeadTail
from finetune.sampling.philox import CounterRNG, normals
from finetune.sampling.plan import Mixing, PlanInputs
from finetune.training.inputs import mixing_of, plan_inputs
from store.errors import UserError
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def made_features(counts: list[int], n_channels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of classes with different means and correlated channels, of unit mean squared norm."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(counts)), counts)
    centre = rng.normal(size=(len(counts), n_channels))
    mixing = rng.normal(size=(len(counts), n_channels, n_channels)) / n_channels**0.5
    away = np.einsum("nc,ncd->nd", rng.normal(size=(len(label), n_channels)), mixing[label])
    pooled = centre[label] + 0.5 * away
    return (pooled / np.sqrt(np.square(pooled).sum(1).mean())).astype(np.float32), label


def samples_of(pooled: np.ndarray, label: np.ndarray, row: int, k: int, n: int, **noise) -> np.ndarray:
    """n samples around one row, as runs of 16 seeds make them: each has noise of its own."""
    seeds = range(16)
    return np.concatenate(
        [samples_of_seed(pooled, label, row, k, n // len(seeds), seed, **noise) for seed in seeds]
    )


def samples_of_seed(
    pooled: np.ndarray, label: np.ndarray, row: int, k: int, n: int, seed: int, **noise
) -> np.ndarray:
    n_classes = label[-1] + 1
    moments = ClassMoments(pooled, label, n_classes)
    options = {"seed": seed, "covariance": "full", "spread": 0.0} | noise
    nearest = moments.nearest(k)
    mixing = Mixing(neighbours=nearest, of_classes=ClassNoise(moments, **options))
    head_tail = HeadTail(np.arange(1), np.arange(1, n_classes))
    none = (None, None, None)
    draws = CounterRNG(seed)
    inputs = PlanInputs(label, head_tail, *none, 1, 1, 1, "classes", (0, 1), draws, mixing)
    rows = np.full((n, 1), row)
    made: Calibrated = calibrated(inputs, 0, n, rows, None, rows)
    features = Features(torch.from_numpy(pooled), torch.from_numpy(label))
    places = features.rows(torch.from_numpy(rows))
    made.write(places, features, None)
    return places[:, 0].numpy()


def published(pooled: np.ndarray, label: np.ndarray, c: int, k: int, n: int, alpha: float) -> np.ndarray:
    """n samples of a class, as the authors' package makes them, without Tukey's transformation."""
    np.random.seed(0)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        made = tailcalib("numpy").generate(
            pooled.astype(np.float64), label, tukey_value=1, alpha=alpha, topk=k, extra_points=n
        )
    return made[2][c]


@pytest.mark.parametrize(("k", "alpha"), [(1, 0.0), (3, 0.0), (2, 0.05)])
def test_samples_are_spread_as_those_of_the_published_code(k, alpha):
    """A class of two rows, each of which makes half of the samples."""
    pooled, label = made_features([60, 40, 30, 2], 5)
    rows, n = np.flatnonzero(label == 3), 40_000
    found = np.concatenate([samples_of(pooled, label, row, k, n // 2, spread=alpha) for row in rows])
    expected = published(pooled, label, 3, k, n, alpha)
    scale = expected.std()
    np.testing.assert_allclose(found.mean(0), expected.mean(0), atol=0.03 * scale)
    np.testing.assert_allclose(np.cov(found.T), np.cov(expected.T), atol=0.06 * scale**2)


@pytest.mark.parametrize("counts", [[200, 90, 7], [30, 12, 8]])
@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("k", [1, 2])
def test_mean_and_covariance_are_those_of_the_formula(counts, covariance, k):
    """Classes of more rows than channels, and of fewer."""
    pooled, label = made_features(counts, 9, seed=1)
    row = len(label) - 1
    mean = np.stack([pooled[label == c].astype(float).mean(0) for c in range(3)])
    nearest = np.argsort(np.square(mean - pooled[row]).sum(1))[:k]
    of_each = np.stack([np.cov(pooled[label == c].T) for c in nearest])
    expected = of_each.mean(0) + 0.01 + 1e-4 * np.eye(9)
    if covariance == "diagonal":
        expected = np.diag(np.diag(expected))
    found = samples_of(pooled, label, row, k, 60_000, covariance=covariance, spread=0.01)
    centre = (pooled[row] + mean[nearest].sum(0)) / (k + 1)
    np.testing.assert_allclose(found.mean(0), centre, atol=0.02 * np.sqrt(np.trace(expected) / 9))
    np.testing.assert_allclose(np.cov(found.T), expected, atol=0.16 * np.trace(expected) / 9)


def test_noise_has_a_mean_of_zero_and_one_sign_as_often_as_the_other():
    moments = ClassMoments(*made_features([50, 20, 1], 6), 4)
    made = ClassNoise(moments, 0, "full", 0.1)
    of_class = made.noise.reshape(4, made.n_vectors, 6)
    np.testing.assert_array_equal(of_class[:, : made.n_vectors // 2], -of_class[:, made.n_vectors // 2 :])
    assert len(np.unique(of_class[0], axis=0)) == made.n_vectors == 1024
    other = ClassNoise(moments, 1, "full", 0.1).noise
    assert not (other == made.noise).any()


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_a_class_of_one_row_has_the_covariance_within_the_others(covariance):
    pooled, label = made_features([40, 25, 1], 4)
    moments = ClassMoments(pooled, label, 3)
    within = sum((n - 1) * np.cov(pooled[label == c].T) for c, n in ((0, 40), (1, 25))) / 63
    np.testing.assert_allclose(moments.root(2).T @ moments.root(2), within, atol=1e-7)
    np.testing.assert_allclose(moments.variance()[2], np.diag(within), rtol=1e-5)
    for c in (0, 1):
        of_class = np.cov(pooled[label == c].T)
        np.testing.assert_allclose(moments.root(c).T @ moments.root(c), of_class, atol=1e-7)
        np.testing.assert_allclose(moments.variance()[c], np.diag(of_class), rtol=1e-5)
    found = samples_of(pooled, label, 65, 1, 40_000, covariance=covariance)
    expected = within if covariance == "full" else np.diag(np.diag(within))
    np.testing.assert_allclose(np.cov(found.T), expected + 1e-4 * np.eye(4), atol=0.1 * within.max())


def test_bits_do_not_depend_on_the_threads_of_blas():
    """More channels than rows, and a class of one row: its covariance has directions of no spread."""
    counts = [60, 30, 9, 1]
    pooled, label = made_features(counts, 256)
    found = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads, "blas"):
            moments = ClassMoments(pooled, label, 4)
            found.append((ClassNoise(moments, 0, "full", 0.0).noise, moments.nearest(2)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(ClassMoments(pooled, label, 4).root(3)) == sum(counts) - len(counts)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_where_all_classes_have_one_row_only_the_jitter_is_left(covariance):
    pooled, label = made_features([1, 1, 1], 5)
    found = samples_of(pooled, label, 1, 2, 20_000, covariance=covariance)
    np.testing.assert_allclose(np.cov(found.T), 1e-4 * np.eye(5), atol=8e-6)


@st.composite
def of_classes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    counts = draw(st.lists(st.integers(0, 5), min_size=2, max_size=6).filter(any))
    k = draw(st.integers(1, sum(n > 0 for n in counts)))
    return *made_features(counts, draw(st.integers(1, 4)), draw(st.integers(0, 99))), k


@given(of_classes())
@settings(max_examples=60, deadline=None)
def test_the_nearest_classes_are_those_that_all_distances_give(case):
    pooled, label, k = case
    n_classes = label.max() + 2  # the last has no rows
    means = {c: pooled[label == c].astype(float).mean(0) for c in np.unique(label)}
    found = ClassMoments(pooled, label, n_classes).nearest(k)
    for row, nearest in zip(pooled.astype(float), found, strict=True):
        distance = {c: np.square(row - mean).sum() for c, mean in means.items()}
        assert len(set(nearest.tolist())) == k
        np.testing.assert_allclose(
            [distance[c] for c in nearest], sorted(distance.values())[:k], rtol=1e-6, atol=1e-9
        )


def test_normals_are_finite_at_both_ends():
    found = normals(np.array([0.0, 0.5 - 2.0**-54, 0.5, 1 - 2.0**-53]))
    assert np.isfinite(found).all()
    assert found[0] < -8 < 8 < found[3]
    assert abs(found[1:3]).max() < 1e-15


def test_bad_options(feature_store):
    command = ["finetune", "--store", feature_store, "--out", "r", "--device", "cpu", "--method", "tailcalib"]
    for options, says in {
        "--neighbour-classes 11": "--neighbour-classes 11: the store has rows of 10 classes; lower it to 10",
        "--neighbour-classes 0": "--neighbour-classes 0: must be 1 or more",
        "--spread -1": "--spread -1: must be from 0 to 32",
        "--covariance round": "--covariance",
    }.items():
        refuse(*command, *options.split(), says=[says])
    assert not Path("r").exists()


def test_classes_that_are_all_equal_are_not_filled_up(feature_store):
    config, store = FinetuneConfig("", method="tailcalib").resolved(3), FeatureStore(feature_store)
    with pytest.raises(UserError, match=r"--mix-classes fill: all classes have 15 rows, so none is filled"):
        mixing_of(config, store, np.array([15, 15, 0, 15]))
    assert mixing_of(config, store, np.array([15, 15, 14])).classes == "fill"
    assert mixing_of(replace(config, mix_classes="all"), store, np.full(3, 15)).classes == "all"


def test_each_class_is_filled_up_to_the_largest(feature_store):
    """Of balanced batches, as many rows of each class stay real as it has, beside the largest."""
    config = replace(asked(feature_store, "tailcalib", None), batch_size=128).resolved(K)
    inputs = plan_inputs(config, FeatureStore(feature_store))
    plan = find_sampling(config).draw(inputs, 0, 600)
    drawn, made = np.zeros(K), np.zeros(K)
    np.add.at(drawn, inputs.label[plan.row].ravel(), 1)
    np.add.at(made, inputs.label[plan.row[plan.mix.is_mixed]], 1)
    counts = np.bincount(inputs.label, minlength=K)
    share = 1 - counts / counts.max()
    deviation = np.sqrt(share * (1 - share) / drawn)
    assert (abs(made / drawn - share) <= 4 * deviation).all()
    assert made[counts == counts.max()].tolist() == [0]
    np.testing.assert_array_equal(plan.n_each, plan.mix.is_mixed.sum(1))
