"""Multinomial logistic regression on pooled features: the FC layer of a network that is not trained.

It is the minimum of

    mean over rows of −log softmax(W x + b)[label]  +  weight_decay / 2 · ‖W‖²,

plain cross-entropy as in the paper's Phase I; the bias is not penalised. scikit-learn's `LogisticRegression`
has the same minimum for C = 1 / (N · weight_decay), and, since it has a single vector for two classes
(W[1] − W[0]), for C = 2 / (N · weight_decay) where K is 2.

Newton's method finds it: each step solves the quadratic model with conjugate gradients, preconditioned by the
diagonal of the second derivative. Values and gradients are summed in float64, or the last steps would be
lost in rounding; products with the second derivative only choose a direction, and are float32.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from extract.classifier.rows import FitRows

TOLERANCE = 1e-8  # of the gradient's norm, each element relative to the root of its second derivative
MOST_STEPS = 100
MOST_PRODUCTS = 250  # of a step
HALVINGS = 30  # of a step that goes too far
SUFFICIENT = 1e-4  # share of the decrease that the gradient promises
ROUNDING = 1e-14  # of the objective's value
HELD_BYTES = 512 * 1024**2  # of probabilities that are kept for a step; more are computed again


@dataclass(frozen=True)
class Fitted:
    """A fitted FC layer.

    Attributes:
        theta: (K, C + 1) float64 on the turned features of its rows, for a fit that starts from it.
        weight, bias: (K, C) and (K,), float64.
        loss: the objective's value.
        gradient: norm of its gradient, as compared with the tolerance.
        n_passes: how often all rows were read.
        converged: whether the gradient is within the tolerance.
    """

    theta: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    loss: float
    gradient: float
    n_passes: int
    converged: bool


def fit(
    rows: FitRows,
    weight_decay: float,
    start: torch.Tensor | None = None,
    tolerance: float = TOLERANCE,
    tick: Callable[[float], None] = lambda gradient: None,
) -> Fitted:
    """Fit the FC layer to all rows.

    The same rows give the same bits on one device with one number of threads.

    Args:
        rows: features and labels.
        weight_decay: 0 or more.
        start: (K, C + 1) `theta` of a fit of the same rows to begin from; None for zeros.
        tolerance: of the gradient's norm.
        tick: called with that norm at every step.
    """
    objective = _Objective(rows, weight_decay)
    theta = torch.zeros(rows.n_classes, rows.n_columns, dtype=torch.float64, device=rows.device)
    theta = theta if start is None else start
    loss, gradient = objective.at(theta)
    for _ in range(MOST_STEPS):
        curvature = objective.curvature(theta)
        norm = float((gradient.square() / curvature).sum().sqrt())
        tick(norm)
        if norm <= tolerance:
            break
        step = _newton_step(objective, gradient, curvature, min(0.1, norm**0.5))
        moved = _line_search(objective, theta, step, loss, float((gradient * step).sum()))
        if moved is None:
            break
        theta, loss, gradient = moved
    return Fitted(
        theta, *rows.to_layer(theta), float(loss), norm, objective.n_passes, bool(norm <= tolerance)
    )


def _newton_step(
    objective: "_Objective", gradient: torch.Tensor, curvature: torch.Tensor, accuracy: float
) -> torch.Tensor:
    """The step (K, C + 1) that solves H step = −gradient up to a relative accuracy."""
    step, rest = torch.zeros_like(gradient), -gradient
    direction = ahead = _even(rest / curvature)
    size = goal = float((rest * ahead).sum())
    for _ in range(MOST_PRODUCTS):
        product = objective.product(direction)
        along = float((direction * product).sum())
        if along <= 0:  # rounding: what is left is flat
            break
        step = step + size / along * direction
        rest = rest - size / along * product
        ahead = _even(rest / curvature)
        size, before = float((rest * ahead).sum()), size
        if size <= accuracy**2 * goal:
            break
        direction = ahead + size / before * direction
    return step


def _even(theta: torch.Tensor) -> torch.Tensor:
    """The same, biases with mean 0: adding a number to all of them changes no probability."""
    theta[:, -1] -= theta[:, -1].mean()
    return theta


def _line_search(
    objective: "_Objective", theta: torch.Tensor, step: torch.Tensor, loss: torch.Tensor, slope: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """The point that a step leads to, halved until the value falls, its value and gradient; None if none."""
    length = 1.0
    for _ in range(HALVINGS):
        ahead = theta + length * step
        value, gradient = objective.at(ahead)
        if value <= loss + SUFFICIENT * length * slope + ROUNDING * abs(loss):
            return ahead, value, gradient
        length /= 2
    return None


class _Objective:
    """The function to minimise, of `theta` (K, C + 1): a row of turned weights and the bias of each class.

    Attributes:
        n_passes: how often all rows were read.
    """

    def __init__(self, rows: FitRows, weight_decay: float):
        self._rows, self.n_passes = rows, 0
        self._decay = torch.full((rows.n_columns,), weight_decay, device=rows.device).double()
        self._decay[-1] = 0
        self._kept: list[torch.Tensor] = []  # probabilities of each chunk at the point of `curvature`
        self._keeps = 4 * len(rows) * rows.n_classes <= HELD_BYTES

    def at(self, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Value and gradient (K, C + 1), float64."""
        self.n_passes += 1
        loss, gradient = theta.new_zeros(()), torch.zeros_like(theta)
        for features, label in self._rows.chunks():
            features = features.double()
            error = torch.log_softmax(features @ theta.T, dim=1)
            loss -= error.gather(1, label[:, None]).sum()
            error.exp_()
            error[torch.arange(len(label), device=label.device), label] -= 1
            gradient.addmm_(error.T, features)
        n_rows = len(self._rows)
        return (
            loss / n_rows + (self._decay / 2 * theta.square()).sum(),
            gradient / n_rows + self._decay * theta,
        )

    def curvature(self, theta: torch.Tensor) -> torch.Tensor:
        """Diagonal (K, C + 1) of the second derivative at a point, which `product` refers to from now on."""
        self.n_passes += 1
        self._theta, self._kept = theta.float(), []
        total = torch.zeros_like(theta)
        for features, _ in self._rows.chunks():
            probability = self._probability(features)
            if self._keeps:
                self._kept.append(probability)
            total += (probability * (1 - probability)).T @ features.square()
        total = total / len(self._rows) + self._decay
        return total.clamp(min=max(float(total.max()) * 1e-12, 1e-300))

    def product(self, direction: torch.Tensor) -> torch.Tensor:
        """The second derivative times a direction (K, C + 1)."""
        self.n_passes += 1
        total, ahead = torch.zeros_like(direction), direction.float().T
        for i, (features, _) in enumerate(self._rows.chunks()):
            probability = self._kept[i] if self._keeps else self._probability(features)
            weighted = probability * (features @ ahead)
            weighted -= probability * weighted.sum(1, keepdim=True)
            total += weighted.T @ features
        return total / len(self._rows) + self._decay * direction

    def _probability(self, features: torch.Tensor) -> torch.Tensor:
        return torch.softmax(features @ self._theta.T, dim=1)
