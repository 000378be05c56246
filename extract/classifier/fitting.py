"""From pooled features to an FC layer, and what is recorded of it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from extract.classifier.decay import against_val, by_folds, choose_decay
from extract.classifier.folded import FoldedRows
from extract.classifier.folds import TRAIN_ONLY, folds_of
from extract.classifier.logistic import TOLERANCE, fit
from extract.classifier.rows import FitRows
from store.errors import UserError
from store.notes import note

N_FOLDS = 5  # to choose a weight decay on


@dataclass(frozen=True)
class Pooled:
    """What a classifier is fitted on.

    Attributes:
        train: pooled features (N, C) float32 of all views.
        label, view: (N,), rows sorted by class, image and view, as in a store.
        together: (N,) int, the same for rows that belong together (`analysis.joined`).
        val: pooled features and labels of the validation split, None if there is none.
        n_classes: K.
    """

    train: np.ndarray
    label: np.ndarray
    view: np.ndarray
    together: np.ndarray
    val: tuple[np.ndarray, np.ndarray] | None
    n_classes: int


@dataclass(frozen=True)
class Classifier:
    """A fitted FC layer: weight (K, C) and bias (K,) float32, and how it was fitted, as JSON values."""

    weight: np.ndarray
    bias: np.ndarray
    record: dict[str, Any]


def fit_classifier(
    features: Pooled, weight_decay: float | None, device: torch.device, progress: Progress
) -> Classifier:
    """Fit the FC layer to all training rows; without a weight decay, choose one first.

    The last fit starts from zero, so that giving the decay that would be chosen leads to the same bits.

    Raises:
        UserError: no decay is given, and there is nothing to choose one on.
    """
    task = progress.add_task("fitting the classifier", total=None, status="")

    def tick(gradient: float) -> None:
        progress.update(task, advance=1, status=f"gradient {gradient:.0e}")

    record: dict[str, Any] = {"weight_decay": weight_decay, "chosen_on": "given", "scores": []}
    if weight_decay is None:
        check_choosable(features.label, features.together, features.val is not None, None)
        record = _chosen(features, device, tick)
    rows = FitRows(features.train, features.label, features.n_classes, device)
    fitted = fit(rows, record["weight_decay"], tick=tick)
    progress.remove_task(task)
    if not fitted.converged:
        note(
            f"the classifier's fit did not converge (gradient {fitted.gradient:.1e} after {fitted.n_passes} "
            f"passes, expected at most {TOLERANCE:.0e}); a larger --weight-decay helps"
        )
    record |= {
        "n_rows": len(rows),
        "loss": fitted.loss,
        "gradient": fitted.gradient,
        "converged": fitted.converged,
    }
    weight, bias = (of.float().cpu().numpy() for of in (fitted.weight, fitted.bias))
    return Classifier(weight, bias, record)


def check_choosable(
    label: np.ndarray, together: np.ndarray, has_val: bool, weight_decay: float | None
) -> None:
    """Raise UserError if a weight decay has to be chosen, and there is nothing to choose it on.

    Args:
        label: (N,) classes of the training rows.
        together: (N,) int, the same for rows that belong together.
        has_val: whether there is a validation split.
        weight_decay: the one that is given, or None.
    """
    if weight_decay is None and not has_val and (folds_of(label, together, N_FOLDS) == TRAIN_ONLY).all():
        raise UserError(
            "train: every class has a single image, or only images of one group, so there is nothing to "
            "choose a weight decay on; pass --weight-decay, for example 0.01"
        )


def _chosen(features: Pooled, device: torch.device, tick: Callable[[float], None]) -> dict[str, Any]:
    """The best weight decay, and the scores of all."""
    if features.val is not None:
        rows = FitRows(features.train, features.label, features.n_classes, device)
        parts, on = against_val(rows, features.label, features.val), "val"
    else:
        fold = folds_of(features.label, features.together, N_FOLDS)
        folded = FoldedRows(features.train, features.label, fold, features.n_classes, device)
        parts, on = by_folds(folded, features.view), f"{N_FOLDS} folds of train"
    scores, chosen = choose_decay(parts, tick)
    return {
        "weight_decay": chosen.weight_decay,
        "n_scored": sum(len(part.label) for part in parts),
        "chosen_on": on,
        "scores": [asdict(score) for score in scores],
    }
