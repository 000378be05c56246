"""The per-class frame, and what it comes to overall and per shot group. Accuracies are percentages."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.shots import GROUPS, shot_groups


def per_class_frame(
    label: np.ndarray,
    prediction: np.ndarray,
    class_names: list[str],
    class_counts: np.ndarray,
    rule: str,
) -> pd.DataFrame:
    """One row a class.

    Args:
        label: (N,) int true class of each test image.
        prediction: (N,) int predicted class.
        class_names: K names.
        class_counts: (K,) training images.
        rule: shot rule.

    Returns:
        class_id, class_name, n_train, n_test, n_correct, accuracy (NaN without test images), shot_group.
    """
    n_classes = len(class_names)
    n_test = np.bincount(label, minlength=n_classes)
    n_correct = np.bincount(label[label == prediction], minlength=n_classes)
    accuracy = np.full(n_classes, np.nan)
    np.divide(100 * n_correct, n_test, out=accuracy, where=n_test > 0)
    return pd.DataFrame(
        {
            "class_id": np.arange(n_classes),
            "class_name": class_names,
            "n_train": class_counts,
            "n_test": n_test,
            "n_correct": n_correct,
            "accuracy": accuracy,
            "shot_group": shot_groups(np.asarray(class_counts), rule),
        }
    )


def group_accuracies(frame: pd.DataFrame) -> dict[str, float]:
    """Overall (over images) and many, medium, few (unweighted means over classes); NaN for an empty group."""
    overall = 100 * frame["n_correct"].sum() / frame["n_test"].sum()
    of_group = frame.groupby("shot_group")["accuracy"].mean()
    return {"overall": float(overall)} | {group: float(of_group.get(group, np.nan)) for group in GROUPS}


def summarise(frame: pd.DataFrame, rule: str) -> dict[str, Any]:
    """`group_accuracies` for a JSON file: null for an empty group, with the rule and the counts beside."""
    accuracies = {k: None if np.isnan(v) else v for k, v in group_accuracies(frame).items()}
    n_classes = {group: int((frame["shot_group"] == group).sum()) for group in GROUPS}
    counts = {"n_correct": int(frame["n_correct"].sum()), "n_test": int(frame["n_test"].sum())}
    return accuracies | {"n_classes": n_classes, "shot_rule": rule} | counts


def confusion_matrix(label: np.ndarray, prediction: np.ndarray, n_classes: int) -> np.ndarray:
    """(K, K) int64 counts: row = true class, column = predicted."""
    return np.bincount(label * n_classes + prediction, minlength=n_classes**2).reshape(n_classes, n_classes)
