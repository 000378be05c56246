"""Post-hoc heads: FC layers computed in one pass over the cached features, without training."""

import warnings
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


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
    bounds = np.searchsorted(trained.label, np.arange(len(trained.weight) + 1))
    rows = [trained.pooled[start:stop] for start, stop in pairwise(bounds)]
    with np.errstate(invalid="ignore"):  # a class without samples has no mean
        mean = np.stack([of_class.sum(axis=0, dtype=np.float64) / len(of_class) for of_class in rows])
    square = (mean**2).sum(axis=1)
    if trained.distance == "cosine":
        return _float32(mean / np.sqrt(square)[:, None]), np.zeros_like(trained.bias)
    return _float32(2 * mean), _float32(-square)


def linear_discriminant(trained: Trained) -> ComputedLayer:
    """Linear discriminant analysis with classes taken as equally frequent, written as an FC layer.

    The covariance is the mean of the classes' own, each divided by its number of samples, shrunk towards a
    multiple of the identity: (1 − s) Σ + s · tr(Σ) / C · I.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # heavy
    from threadpoolctl import threadpool_limits

    present, n_classes = np.unique(trained.label), len(trained.weight)
    if len(present) < n_classes:  # a class without samples has no mean
        return np.full_like(trained.weight, np.nan), np.full_like(trained.bias, np.nan)
    analysis = LinearDiscriminantAnalysis(
        solver="lsqr", shrinkage=trained.shrinkage, priors=np.full(n_classes, 1 / n_classes)
    )
    # The rounding of BLAS depends on the number of threads.
    with threadpool_limits(1, "blas"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Only one sample")  # a class of one adds nothing to the covariance
        analysis.fit(trained.pooled.astype(np.float64), trained.label)
    weight, bias = analysis.coef_, analysis.intercept_
    if len(weight) == 1:  # of two classes it has the difference only
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    return _float32(weight), _float32(bias)


def _float32(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)
