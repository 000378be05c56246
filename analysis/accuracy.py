"""The per-class frame, and accuracies over images, over classes and per group, in %."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.shots import GROUPS, shot_groups

PARTS = ("head", "tail")  # of the classes, independent of the shot groups (paper, sec. 5.4)
MEASURES = ("overall", "balanced_accuracy", *GROUPS, *PARTS)
SCORES = {"balanced": "balanced_accuracy", "overall": "overall"}  # accuracies that choices can be based on
LEGEND = (  # no wider than a table
    "overall: share of images; balanced, groups, head and tail (the paper's): means over classes with images"
)


def per_class_frame(
    label: np.ndarray,
    prediction: np.ndarray,
    class_names: list[str],
    class_counts: np.ndarray,
    rule: str,
) -> pd.DataFrame:
    """One row per class.

    Args:
        label: (N,) int true class of each test image.
        prediction: (N,) int predicted class.
        class_names: K names.
        class_counts: (K,) training images.
        rule: shot rule; see `analysis.shots.bounds`.

    Returns:
        class_id, class_name, n_train, n_test, n_correct, accuracy (NaN without test images), shot_group.
    """
    n_classes = len(class_names)
    n_test = np.bincount(label, minlength=n_classes)
    n_correct = np.bincount(label[label == prediction], minlength=n_classes)
    return counted_frame(n_test, n_correct, class_names, class_counts, rule)


def counted_frame(
    n_test: np.ndarray, n_correct: np.ndarray, class_names: list[str], class_counts: np.ndarray, rule: str
) -> pd.DataFrame:
    """`per_class_frame` from counts: (K,) images of each class, and (K,) of them that are predicted right."""
    n_classes = len(class_names)
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


def balanced_accuracy(label: np.ndarray, prediction: np.ndarray) -> float:
    """Mean per-class accuracy in %, over the classes that have images; every class has equal weight.

    Args:
        label: (N,) int true classes, N ≥ 1.
        prediction: (N,) int predicted classes.
    """
    n_images = np.bincount(label)
    n_correct = np.bincount(label[label == prediction], minlength=len(n_images))
    present = n_images > 0
    return float(np.mean(100 * n_correct[present] / n_images[present]))


def group_accuracies(
    frame: pd.DataFrame, parts: Mapping[str, Sequence[int] | np.ndarray] | None = None
) -> dict[str, float]:
    """Overall accuracy (over images); balanced and per group (unweighted means over classes with images).

    Args:
        frame: a per-class frame.
        parts: class indices of head and tail, to include them.

    Returns:
        overall, balanced_accuracy, many, medium, few, and one value for each of `parts`; NaN for a group
        without images.
    """
    accuracy = frame["accuracy"]
    overall = 100 * frame["n_correct"].sum() / frame["n_test"].sum()
    found = {"overall": float(overall), "balanced_accuracy": float(accuracy.mean())}
    of_group = accuracy.groupby(frame["shot_group"]).mean()
    found |= {group: float(of_group.get(group, np.nan)) for group in GROUPS}
    return found | {
        part: float(accuracy.iloc[np.asarray(ids, int)].mean()) for part, ids in (parts or {}).items()
    }


def summarise(
    frame: pd.DataFrame, rule: str, parts: Mapping[str, Sequence[int] | np.ndarray] | None = None
) -> dict[str, Any]:
    """`group_accuracies` for JSON: None for an empty group; with the shot rule and counts."""
    found = group_accuracies(frame, parts)
    accuracies = {k: None if np.isnan(v) else v for k, v in found.items()}
    n_classes = {group: int((frame["shot_group"] == group).sum()) for group in GROUPS}
    n_classes |= {part: len(ids) for part, ids in (parts or {}).items()}
    counts = {"n_correct": int(frame["n_correct"].sum()), "n_test": int(frame["n_test"].sum())}
    return accuracies | {"n_classes": n_classes, "shot_rule": rule} | counts


def shown_measures(accuracies: Mapping[str, float | None]) -> list[str]:
    """Names of the accuracies to print: head and tail are added if a shot group is empty."""
    groups = [group for group in GROUPS if pd.notna(accuracies.get(group))]
    both = [name for name in ("overall", "balanced_accuracy") if pd.notna(accuracies.get(name))]
    instead = len(groups) < len(GROUPS) and all(pd.notna(accuracies.get(part)) for part in PARTS)
    return [*both, *groups, *(PARTS if instead else ())]


def is_score(column: str, measures: Iterable[str] = SCORES) -> bool:
    """Whether a column is a score of `measures` on any split, such as val_overall."""
    return column.endswith(tuple(f"_{SCORES[measure]}" for measure in measures))


def in_words(column: str) -> str:
    """Name of an accuracy column on the screen: "val balanced" for val_balanced_accuracy."""
    return column.removesuffix("_accuracy").replace("_", " ")
