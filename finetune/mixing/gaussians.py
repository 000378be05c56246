"""Class means, variances and Gaussian noise of pooled features, for mixes and losses that spread samples.

Everything is computed in float64 and class by class, so that a seed gives the same noise on every store
with the same features, and no table of all rows is made.
"""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from finetune.sampling.philox import CounterRNG, normals

if TYPE_CHECKING:  # the command line imports the mixes for the methods' names and must not wait for torch
    import torch

ROWS_AT_ONCE = 2048
MOST_VECTORS, LEAST_VECTORS = 1024, 32  # noise vectors of a class, and of one where there are many classes
MOST_NUMBERS = 2**27  # of all classes, as far as LEAST_VECTORS allows: half a gigabyte of float32
JITTER = 1e-4  # added to each variance, times the mean squared norm
RANK = 1e-12  # of the largest eigenvalue: smaller ones are 0
one_thread = threadpool_limits.wrap(limits=1, user_api="blas")  # BLAS rounds by their number


class ClassMoments:
    """Means and spread of the rows of each class.

    A class of one row has the covariance within all other classes: none, if these have one row too.

    Attributes:
        mean: (K, C) float64; zeros for a class without rows.
        count: (K,) rows of each class.
        square: mean squared norm of the rows.
    """

    def __init__(self, pooled: np.ndarray, label: np.ndarray, n_classes: int):
        """Compute means; covariances follow when they are asked for.

        Args:
            pooled: (N, C) float32 pooled features.
            label: (N,) int, ascending.
            n_classes: K.
        """
        self._pooled = pooled
        self._bounds = np.searchsorted(label, np.arange(n_classes + 1))
        self.count = np.diff(self._bounds)
        self.mean = np.zeros((n_classes, pooled.shape[1]))
        total = 0.0
        for c in np.flatnonzero(self.count):
            rows = self._rows(c)
            self.mean[c] = rows.mean(axis=0)
            total += np.square(rows).sum()
        self.square = total / max(1, len(pooled))

    def _rows(self, c: int) -> np.ndarray:
        return self._pooled[self._bounds[c] : self._bounds[c + 1]].astype(np.float64)

    def deviations(self, c: int) -> np.ndarray:
        """(n, C) rows of a class less its mean."""
        return self._rows(c) - self.mean[c]

    def variance(self) -> np.ndarray:
        """(K, C) float64 variances of each class, with n − 1."""
        found, within = np.zeros_like(self.mean), np.zeros(self.mean.shape[1])
        for c in np.flatnonzero(self.count > 1):
            squares = np.square(self.deviations(c)).sum(axis=0)
            found[c] = squares / (self.count[c] - 1)
            within += squares
        found[self.count == 1] = within / max(1, self._freedom)
        return found

    @property
    def _freedom(self) -> int:
        return int((self.count - 1).clip(min=0).sum())

    def root(self, c: int) -> np.ndarray:
        """(R, C) float64 A with AᵀA the covariance of a class, with n − 1."""
        if self.count[c] == 0:
            return self.mean[:0]
        if self.count[c] == 1:
            return self._root_within
        deviations = self.deviations(c) / np.sqrt(self.count[c] - 1)
        if len(deviations) <= deviations.shape[1]:
            return deviations
        return np.linalg.qr(deviations, "r")

    @cached_property
    def _root_within(self) -> np.ndarray:
        """The same of the covariance within all classes."""
        n_channels = self.mean.shape[1]
        within = np.zeros((n_channels, n_channels))
        for c in np.flatnonzero(self.count > 1):
            deviations = self.deviations(c)
            within += deviations.T @ deviations
        values, vectors = np.linalg.eigh(within / max(1, self._freedom))
        kept = values > RANK * values[-1]  # the rest is rounding, in directions that mean nothing
        return (vectors[:, kept] * np.sqrt(values[kept])).T

    @one_thread
    def nearest(self, k: int) -> np.ndarray:
        """(N, k) int64 the classes whose means are nearest to each row, nearest first.

        k is at most the number of classes with rows: others have no mean.
        """
        present = np.flatnonzero(self.count)
        means = self.mean[present]
        found = np.empty((len(self._pooled), k), np.int64)
        for start in range(0, len(found), ROWS_AT_ONCE):
            rows = self._pooled[start : start + ROWS_AT_ONCE].astype(np.float64)
            distance = np.square(means).sum(axis=1) - 2 * rows @ means.T  # less the row's own square
            some = np.sort(np.argpartition(distance, k - 1, axis=1)[:, :k], axis=1)
            order = np.argsort(np.take_along_axis(distance, some, 1), axis=1, kind="stable")
            found[start : start + ROWS_AT_ONCE] = present[np.take_along_axis(some, order, 1)]
        return found


class ClassNoise:
    """Gaussian noise of each class around zero: vectors drawn once, from which samples take theirs.

    Each vector is there with both signs, so that the mean of all is zero.

    Attributes:
        n_vectors: M, for each class.
        mean: (K, C) float32 class means.
        noise: (K · M, C) float32; class · M + i is the index of a vector.
    """

    @one_thread
    def __init__(self, moments: ClassMoments, seed: int, covariance: str, spread: float):
        """Draw the vectors.

        Args:
            moments: of the classes.
            seed: of the run.
            covariance: "full", or "diagonal" for variances alone.
            spread: α, added to each entry of a covariance, or to the variances; as a share of the mean
                squared norm.
        """
        n_classes, n_channels = moments.mean.shape
        fitting = MOST_NUMBERS // (n_classes * n_channels)
        half = min(MOST_VECTORS, max(LEAST_VECTORS, fitting)) // 2
        self.n_vectors, self.mean = 2 * half, moments.mean.astype(np.float32)
        self.noise = np.empty((n_classes, 2, half, n_channels), np.float32)
        draws, is_full = CounterRNG(seed), covariance == "full"
        of_each, of_all = (JITTER, spread) if is_full else (JITTER + spread, 0.0)
        of_each, of_all = np.sqrt(of_each * moments.square), np.sqrt(of_all * moments.square)
        deviation = None if is_full else np.sqrt(moments.variance())
        for c in range(n_classes):
            root = moments.root(c) if is_full else None
            n_own = len(root) if is_full else n_channels
            drawn = normals(draws.uniform("normal", c, c + 1, half, n_own + n_channels + 1)[0])
            own, each, shared = np.split(drawn, [n_own, n_own + n_channels], axis=1)
            own = own @ root if is_full else own * deviation[c]
            made = own + of_each * each + of_all * shared
            self.noise[c] = np.stack([made, -made])
        self.noise = self.noise.reshape(-1, n_channels)
        self._on: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

    def on(self, device: "torch.device") -> tuple["torch.Tensor", "torch.Tensor"]:
        """Means and noise on a device; moved there once."""
        import torch

        if device not in self._on:
            self._on[device] = tuple(torch.as_tensor(part, device=device) for part in (self.mean, self.noise))
        return self._on[device]
