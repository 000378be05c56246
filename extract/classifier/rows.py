"""Pooled features to fit a classifier on, along their principal axes, in chunks."""

from collections.abc import Iterator
from copy import copy

import numpy as np
import torch

CHUNK_BYTES = 32 * 1024**2  # of a chunk's features and logits in float64


class FitRows:
    """N rows of features with their labels, on a device.

    The features are centred and turned to their principal axes, where a fit is conditioned best, and a column
    of ones is added for the bias. Both only change variables: `to_layer` takes them back, and the lengths of
    weight vectors stay what they are.

    Attributes:
        n_classes: K.
        n_columns: C + 1.
        label: (N,) int64 on the device; of all rows, also in what `without` returns.
    """

    def __init__(self, pooled: np.ndarray, label: np.ndarray, n_classes: int, device: torch.device):
        n_rows, n_channels = pooled.shape
        self.n_classes, self.n_columns = int(n_classes), n_channels + 1
        self.label = torch.as_tensor(label, device=device).long()
        self._size = max(1, CHUNK_BYTES // (8 * (self.n_columns + 2 * self.n_classes)))
        features = torch.from_numpy(np.array(pooled, np.float32)).to(device)
        self._mean = sum(part.double().sum(0) for part in features.split(self._size)) / n_rows
        covariance = sum(
            (part.double() - self._mean).T @ (part.double() - self._mean)
            for part in features.split(self._size)
        )
        self._axes = torch.linalg.eigh(covariance.cpu() / n_rows)[1].to(device)
        self._turned = self.turned(features)
        self._parts = ((0, n_rows),)

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self._parts)

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.label.device

    def turned(self, pooled: torch.Tensor) -> torch.Tensor:
        """(M, C + 1) float32: features (M, C) on the device, turned as these rows are, and ones."""
        turned = torch.ones(len(pooled), self.n_columns, device=self.device)
        for part, into in zip(pooled.split(self._size), turned.split(self._size), strict=True):
            into[:, :-1] = (part.double() - self._mean) @ self._axes
        return turned

    def rows(self, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Turned features (M, C + 1) float32 and labels (M,) int64 of a range of rows."""
        return self._turned[start:stop], self.label[start:stop]

    def without(self, start: int, stop: int) -> "FitRows":
        """All rows but a range, in the same coordinates and the same memory."""
        others = copy(self)
        others._parts = ((0, start), (stop, len(self.label)))
        return others

    def chunks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Turned features (B, C + 1) float32 and labels (B,) int64 of consecutive rows."""
        for start, stop in self._parts:
            features, label = self.rows(start, stop)
            yield from zip(features.split(self._size), label.split(self._size), strict=True)

    def to_layer(self, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (K, C) and bias (K,) on the features as they were, of (K, C + 1) on the turned ones."""
        weight = theta[:, :-1] @ self._axes.T
        bias = theta[:, -1] - weight @ self._mean
        return weight, bias - bias.mean()  # a number added to all biases changes nothing
