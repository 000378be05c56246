"""Which classes are confused with which.

With many classes most pairs never occur, so only those that do are counted: memory grows with the images,
not with the square of the classes. A square matrix is made only for groups of classes.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from rich.cells import cell_len, set_cell_size

from store.names import shown

MOST_PAIRS = 1_000  # per configuration in a file


def confused_pairs(
    label: np.ndarray, before: Sequence[np.ndarray], after: Sequence[np.ndarray], n_classes: int
) -> pd.DataFrame:
    """Wrong predictions before and after, by true and predicted class.

    Args:
        label: (N,) int true class of each test image.
        before, after: (N,) int predicted classes, one array per run.
        n_classes: K.

    Returns:
        One row per pair that occurs, most images first (the larger of before and after): true_id,
        predicted_id, n_test (test images of the true class), count_before and count_after (mean number of
        confused images over the runs), percent_before and percent_after (of n_test).
    """
    label = np.asarray(label, np.int64)
    found = [_wrong(label, predictions, n_classes) for predictions in (before, after)]
    pairs = np.union1d(found[0][0], found[1][0])
    counts = np.zeros((2, len(pairs)))
    for mean, (codes, count) in zip(counts, found, strict=True):
        mean[np.searchsorted(pairs, codes)] = count
    true, predicted = np.divmod(pairs, n_classes)
    n_test = np.bincount(label, minlength=n_classes)[true]
    most = counts.max(axis=0)
    order = np.lexsort((predicted, true, -most / n_test, -most))
    content = {"true_id": true, "predicted_id": predicted, "n_test": n_test}
    content |= {"count_before": counts[0], "count_after": counts[1]}
    content |= {"percent_before": 100 * counts[0] / n_test, "percent_after": 100 * counts[1] / n_test}
    return pd.DataFrame(content).iloc[order].reset_index(drop=True)


def _wrong(
    label: np.ndarray, predictions: Sequence[np.ndarray], n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes true · K + predicted of wrong predictions, ascending, and their mean counts over runs."""
    codes = [(label * n_classes + predicted)[predicted != label] for predicted in predictions]
    pairs, counts = np.unique(np.concatenate(codes), return_counts=True)
    return pairs, counts / len(predictions)


def with_names(pairs: pd.DataFrame, class_names: Sequence[str], configuration: str) -> pd.DataFrame:
    """The most confused of `confused_pairs` for a file, with configuration and class names."""
    names = np.asarray(class_names, dtype=object)
    most = pairs.head(MOST_PAIRS)
    named = {"true_class": names[most["true_id"]], "predicted_class": names[most["predicted_id"]]}
    columns = ["configuration", "true_class", "predicted_class", *(c for c in most if "_id" not in c)]
    return most.assign(configuration=configuration, **named)[[*columns, "true_id", "predicted_id"]]


def pair_lines(pairs: pd.DataFrame, n: int) -> list[str]:
    """The n most confused pairs of `with_names` as lines for the screen."""
    first = pairs.head(n)
    of_each = zip(first["true_class"], first["predicted_class"], strict=True)
    names = [" → ".join(shown(str(part)) for part in pair) for pair in of_each]
    widest = max(map(cell_len, names), default=0)
    return [
        f"{set_cell_size(name, widest)}  {row.count_before:6.1f} → {row.count_after:.1f}  of {row.n_test:,}"
        for name, row in zip(names, first.itertuples(), strict=True)
    ]


def group_confusion(
    label: np.ndarray, predictions: Sequence[np.ndarray], group: np.ndarray, errors_only: bool
) -> np.ndarray:
    """Confusion matrix of groups of classes.

    Args:
        label: (N,) int true class of each test image.
        predictions: (N,) int predicted classes, one array per run.
        group: (K,) int group of each class, from 0 to G − 1.
        errors_only: leave out correct predictions.

    Returns:
        (G, G): row = true group, in % of its test images, mean over runs; 0 for a group without images.
    """
    n_groups = int(group.max()) + 1
    row = group[label].astype(np.int64)
    counts = np.zeros(n_groups * n_groups)
    for predicted in predictions:
        taken = predicted != label if errors_only else slice(None)
        codes = (row * n_groups + group[predicted])[taken]
        counts += np.bincount(codes, minlength=n_groups * n_groups)
    totals = np.bincount(row, minlength=n_groups)[:, None] * len(predictions)
    return 100 * counts.reshape(n_groups, n_groups) / np.maximum(totals, 1)
