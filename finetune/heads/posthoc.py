"""Post-hoc heads: FC layers computed in one pass over the cached features, without training."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from store.errors import UserError

ROWS_AT_ONCE = 4096  # in float64, in the linear discriminant: 64 MB of 2,048 channels


@dataclass(frozen=True)
class Trained:
    """Inputs of post-hoc methods.

    Attributes:
        weight, bias: (K, C) and (K,) float32, Phase I's FC layer.
        pooled: (N, C) float32 training features.
        label: (N,) int, ascending.
        class_counts: (K,) training images of each class.
        tau: strength τ.
        distance: "euclidean" or "cosine", for the nearest class mean.
        shrinkage: share of the identity in the covariance of the linear discriminant.
    """

    weight: np.ndarray
    bias: np.ndarray
    pooled: np.ndarray
    label: np.ndarray
    class_counts: np.ndarray
    tau: float
    distance: str
    shrinkage: float = 0.0


ComputedLayer = tuple[np.ndarray, np.ndarray]  # weight (K, C) and bias (K,), float32


def logit_adjustment(trained: Trained) -> ComputedLayer:
    """z − τ · log π, with π the class distribution of training (Menon et al. 2021), as a bias."""
    prior = trained.class_counts / trained.class_counts.sum()
    return trained.weight, _float32(trained.bias - trained.tau * np.log(prior))


def multiplicative_adjustment(trained: Trained) -> ComputedLayer:
    """z · π^−τ, with π the class distribution of training (Hasegawa & Sato 2023), as longer weights."""
    prior = trained.class_counts / trained.class_counts.sum()
    factor = prior**-trained.tau
    return _float32(trained.weight * factor[:, None]), _float32(trained.bias * factor)


def tau_norm(trained: Trained) -> ComputedLayer:
    """w / ‖w‖^τ, without bias (Kang et al. 2020)."""
    weight = trained.weight.astype(np.float64)
    length = np.linalg.norm(weight, axis=1, keepdims=True)
    return _float32(weight / length**trained.tau), np.zeros_like(trained.bias)


def nearest_class_mean(trained: Trained) -> ComputedLayer:
    """The class with the nearest mean feature (Kang et al. 2020), written as an FC layer.

    ‖x − m‖² is smallest where 2 m·x − ‖m‖² is largest; the cosine to m is largest where m·x / ‖m‖ is.
    """
    with np.errstate(invalid="ignore"):  # a class without samples has no mean
        mean = np.stack([part.sum(axis=0, dtype=np.float64) / len(part) for part in _by_class(trained)])
    square = (mean**2).sum(axis=1)
    if trained.distance == "cosine":
        return _float32(mean / np.sqrt(square)[:, None]), np.zeros_like(trained.bias)
    return _float32(2 * mean), _float32(-square)


def linear_discriminant(trained: Trained) -> ComputedLayer:
    """Linear discriminant analysis with classes taken as equally frequent, written as an FC layer.

    The covariance is the mean of the classes' own, each divided by its number of samples, shrunk towards a
    multiple of the identity: (1 − s) Σ + s · tr(Σ) / C · I. Directions in which no class varies, which a
    covariance of few rows has, are left out. (scikit-learn's divides by rounding in such directions, refuses
    classes of one sample each, and makes a C × C matrix for every class.)

    Raises:
        UserError: no class varies at all.
    """
    from threadpoolctl import threadpool_limits

    counts = np.bincount(trained.label, minlength=len(trained.weight))
    with threadpool_limits(1, "blas"):  # whose rounding depends on the number of threads
        sums = np.stack([part.sum(axis=0, dtype=np.float64) for part in _by_class(trained)])
        with np.errstate(invalid="ignore"):  # a class without samples has no mean
            mean = sums / counts[:, None]
        covariance = np.zeros((mean.shape[1],) * 2)
        for start in range(0, len(trained.label), ROWS_AT_ONCE):
            label = trained.label[start : start + ROWS_AT_ONCE]
            around = trained.pooled[start : start + ROWS_AT_ONCE] - mean[label]
            around /= np.sqrt(counts[label] * len(counts))[:, None]
            covariance += around.T @ around
        spread = np.trace(covariance) / len(covariance)
        if spread == 0:
            raise UserError(
                "--method lda: images of a class all have the same features, so there is no spread to weigh "
                "differences by; use --method ncm"
            )
        covariance *= 1 - trained.shrinkage
        covariance[np.diag_indices_from(covariance)] += trained.shrinkage * spread
        variance, direction = np.linalg.eigh(covariance)
        seen = variance > len(variance) * np.finfo(np.float64).eps * variance[-1]
        weight = (mean @ direction[:, seen] / variance[seen]) @ direction[:, seen].T
    return _float32(weight), _float32(-(weight * mean).sum(axis=1) / 2)


def _by_class(trained: Trained) -> list[np.ndarray]:
    """Features of each class."""
    bounds = np.searchsorted(trained.label, np.arange(len(trained.weight) + 1))
    return [trained.pooled[start:stop] for start, stop in pairwise(bounds)]


def _float32(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)
