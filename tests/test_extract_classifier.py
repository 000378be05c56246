"""Classifiers fitted on pooled features, against scikit-learn's logistic regression."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from extract.classifier.fitting import N_FOLDS, Pooled, fit_classifier
from extract.classifier.folded import FoldedRows, refit
from extract.classifier.folds import folds_of, images_of
from extract.classifier.logistic import fit
from extract.classifier.rows import FitRows
from store.errors import UserError

CPU = torch.device("cpu")


def made(n: int, c: int, k: int, imbalance: float = 0.02, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features that are zero or positive, long-tailed, every class present; sorted by class."""
    generator = np.random.default_rng(seed)
    share = imbalance ** (np.arange(k) / (k - 1))
    label = np.sort(np.r_[np.arange(k), generator.choice(k, n - k, p=share / share.sum())])
    features = generator.normal(size=(k, c))[label] / 2 + generator.normal(size=(n, c))
    mixed = features @ (np.eye(c) + generator.normal(size=(c, c)) / c**0.5)
    return np.maximum(0, mixed + 0.3).astype(np.float32), label


def fitted(features: np.ndarray, label: np.ndarray, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a fit that converged."""
    found = fit(FitRows(features, label, label.max() + 1, CPU), decay)
    assert found.converged
    return found.weight.numpy(), found.bias.numpy()


def lone(n: int, c: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    features, label = made(n, c, k)
    keep = np.flatnonzero((label < k - 1) | (np.arange(n) == n - 1))
    return features[keep], label[keep]


def constant(n: int, c: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    features, label = made(n, c, k)
    features[:, ::4] = 2.5
    return features, label


CASES = {
    "two classes": (made, 200, 12, 2, 1e-2),
    "two classes, nearly free": (made, 200, 12, 2, 1e-5),
    "a class of one image": (lone, 150, 8, 3, 1e-3),
    "fifty classes": (made, 600, 12, 50, 1e-2),
    "fewer rows than channels": (made, 40, 120, 4, 1e-3),
    "constant features": (constant, 200, 12, 5, 1e-3),
}


@pytest.mark.parametrize("case", CASES)
def test_coefficients_and_predictions_are_those_of_scikit_learn(case):
    make, n, c, k, decay = CASES[case]
    features, label = make(n, c, k)
    weight, bias = fitted(features, label, decay)
    regularisation = (2 if k == 2 else 1) / (len(label) * decay)
    oracle = LogisticRegression(C=regularisation, tol=1e-12, max_iter=20_000).fit(
        features.astype(float), label
    )
    ours, theirs = weight, oracle.coef_
    if k == 2:
        ours, ours_bias, theirs_bias = ours[1:] - ours[:1], bias[1:] - bias[:1], oracle.intercept_
    else:
        ours_bias, theirs_bias = bias - bias.mean(), oracle.intercept_ - oracle.intercept_.mean()
    assert np.abs(ours - theirs).max() <= 1e-3 * np.abs(theirs).max()
    assert np.abs(ours_bias - theirs_bias).max() <= 1e-3 * np.abs(theirs_bias).max()
    assert ((features @ weight.T + bias).argmax(1) == oracle.predict(features)).all()
    if make is constant:
        assert np.abs(weight[:, ::4]).max() < 1e-9  # only the bias may use them


def test_features_times_a_thousand_need_a_millionth_of_the_penalty():
    """A relation that holds exactly: scikit-learn's own L-BFGS does not converge there."""
    features, label = constant(200, 12, 5)
    weight, bias = fitted(features, label, 1e-3)
    large_weight, large_bias = fitted(features * 1000, label, 1e-3 * 1e6)
    assert np.allclose(large_weight * 1000, weight, rtol=1e-4, atol=1e-6 * np.abs(weight).max())
    assert np.allclose(large_bias, bias, rtol=1e-4, atol=1e-5)


def test_chunks_and_probabilities_computed_again_change_nothing_but_rounding(monkeypatch):
    features, label = made(300, 10, 4)
    whole = fitted(features, label, 1e-3)
    monkeypatch.setattr("extract.classifier.rows.CHUNK_BYTES", 8 * 19 * 7)  # seven rows
    monkeypatch.setattr("extract.classifier.logistic.HELD_BYTES", 0)
    parts = fitted(features, label, 1e-3)
    assert all(np.allclose(a, b, rtol=1e-6, atol=1e-7) for a, b in zip(whole, parts, strict=True))


def test_a_fit_is_the_same_to_the_bit_and_does_not_converge_without_a_penalty(monkeypatch):
    features, label = made(60, 80, 3)
    first, second = (fitted(features, label, 1e-4) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    monkeypatch.setattr("extract.classifier.logistic.MOST_STEPS", 3)
    found = fit(FitRows(features, label, 3, CPU), 0.0)  # separable: the minimum is at infinity
    assert not found.converged
    assert torch.isfinite(found.weight).all()


def pooled_of(features: np.ndarray, label: np.ndarray, val=None) -> Pooled:
    return Pooled(features, label, np.zeros(len(label), int), np.arange(len(label)), val, label.max() + 1)


def test_the_decay_chosen_on_val_has_the_lowest_loss_there_once_shares_are_exchanged(quiet):
    features, label = made(600, 30, 4)
    train = np.sort(np.random.default_rng(1).permutation(600)[:200])
    rest = np.setdiff1d(np.arange(600), train)
    val = np.concatenate([rest[label[rest] == k][:8] for k in range(4)])
    found = fit_classifier(
        pooled_of(features[train], label[train], (features[val], label[val])), None, CPU, quiet
    )
    record = found.record
    assert record["chosen_on"] == "val"
    n_train, n_val = (np.bincount(label[of], minlength=4) for of in (train, val))

    def loss(decay: float) -> float:
        weight, bias = fitted(features[train], label[train], decay)
        odds = np.exp(features[val] @ weight.T + bias) * (n_val / n_val.sum()) / (n_train / n_train.sum())
        return float(-np.log(odds[np.arange(len(val)), label[val]] / odds.sum(1)).mean())

    for score in record["scores"]:
        assert score["log_loss"] == pytest.approx(loss(score["weight_decay"]), rel=1e-3)
    lowest = min(score["log_loss"] for score in record["scores"])
    good = [score["weight_decay"] for score in record["scores"] if score["log_loss"] <= lowest + 1e-3]
    assert record["weight_decay"] == max(good)
    given = fit_classifier(pooled_of(features[train], label[train]), record["weight_decay"], CPU, quiet)
    assert (given.weight == found.weight).all()
    assert (given.bias == found.bias).all()
    assert given.record["chosen_on"] == "given"


def test_the_search_goes_on_where_features_are_large(quiet):
    features, label = made(300, 20, 3)
    small, large = (
        fit_classifier(pooled_of(features * np.float32(by), label), None, CPU, quiet).record["weight_decay"]
        for by in (1, 100)
    )
    assert large > 1
    assert large == pytest.approx(small * 1e4, rel=0.01)


def test_weak_decays_that_two_stronger_ones_beat_are_not_tried(quiet):
    features, label = made(300, 20, 3)
    scores = fit_classifier(pooled_of(features * np.float32(10), label), None, CPU, quiet).record["scores"]
    decays = [score["weight_decay"] for score in scores]
    best = min(scores, key=lambda score: score["log_loss"])["weight_decay"]
    assert best / 1e4 < min(decays) <= best / 30
    tiny = fit_classifier(pooled_of(features * np.float32(1e-2), label), None, CPU, quiet).record
    assert tiny["weight_decay"] < 1e-4  # log-losses of 1 and 0.1 are alike there: the search goes on


def test_classes_that_are_far_apart_do_not_make_weights_grow(quiet):
    label = np.repeat(np.arange(3), 20)
    features = (10 * np.eye(3)[label] + np.random.default_rng(0).normal(size=(60, 3))).astype(np.float32)
    record = fit_classifier(pooled_of(features, label), None, CPU, quiet).record
    assert record["converged"]
    assert record["weight_decay"] >= 1e-6
    assert len(record["scores"]) < 12


def test_folds_hold_whole_images_of_every_class_that_has_two(quiet):
    images = np.repeat(np.arange(4), [1, 2, 7, 23])
    label, view = np.repeat(images, 3), np.tile(np.arange(3), len(images))
    fold = folds_of(label, images_of(view), N_FOLDS)
    of_image = fold.reshape(-1, 3)
    assert (of_image == of_image[:, :1]).all()
    of_image = of_image[:, 0]
    assert of_image[0] == -1
    assert (of_image[1:] >= 0).all()
    for k in (1, 2, 3):
        counts = np.bincount(of_image[images == k], minlength=N_FOLDS)
        assert counts.max() - counts.min() <= 1
    features = np.random.default_rng(0).normal(size=(len(label), 5)).astype(np.float32)
    found = fit_classifier(Pooled(features, label, view, images_of(view), None, 4), None, CPU, quiet)
    assert found.record["chosen_on"] == "5 folds of train"
    with pytest.raises(UserError, match="pass --weight-decay"):
        fit_classifier(pooled_of(features[:3], np.arange(3)), None, CPU, quiet)


def test_a_fold_knows_nothing_of_what_it_holds_out_where_no_fit_converges():
    """Without weight decay, labels of pure noise are learned by heart; held-out ones can only be guessed."""
    generator = np.random.default_rng(0)
    features, label = generator.normal(size=(90, 200)).astype(np.float32), np.sort(np.arange(90) % 5)
    fold = folds_of(label, np.arange(90), 5)
    layers = refit(FoldedRows(features, label, fold, 5, CPU), 0.0, lambda gradient: None)
    right = sum(
        (features[fold == i] @ weight.T + bias).argmax(1) == label[fold == i]
        for i, (weight, bias) in enumerate(layers)
    )
    assert right.sum() < 45  # chance is 18
