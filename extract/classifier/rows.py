"""Pooled features to fit a classifier on, along their principal axes, in chunks."""

from collections.abc import Iterator

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
    """

    def __init__(self, pooled: np.ndarray, label: np.ndarray, n_classes: int, device: torch.device):
        n_rows, n_channels = pooled.shape
        self.n_classes, self.n_columns = int(n_classes), n_channels + 1
        self._label = torch.as_tensor(label, device=device).long()
        self._size = max(1, CHUNK_BYTES // (8 * (self.n_columns + 2 * self.n_classes)))
        features = torch.from_numpy(np.array(pooled, np.float32)).to(device)
        self._mean = sum(part.double().sum(0) for part in features.split(self._size)) / n_rows
        covariance = sum(
            (part.double() - self._mean).T @ (part.double() - self._mean)
            for part in features.split(self._size)
        )
        self._axes = torch.linalg.eigh(covariance.cpu() / n_rows)[1].to(device)
        self._features = torch.ones(n_rows, self.n_columns, device=device)
        for part, turned in zip(features.split(self._size), self._features.split(self._size), strict=True):
            turned[:, :-1] = (part.double() - self._mean) @ self._axes

    def __len__(self) -> int:
        return len(self._label)

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self._label.device

    def chunks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Turned features (B, C + 1) float32 and labels (B,) int64 of consecutive rows."""
        return zip(self._features.split(self._size), self._label.split(self._size), strict=True)

    def to_layer(self, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (K, C) and bias (K,) on the features as they were, of (K, C + 1) on the turned ones."""
        weight = theta[:, :-1] @ self._axes.T
        bias = theta[:, -1] - weight @ self._mean
        return weight, bias - bias.mean()  # a number added to all biases changes nothing
