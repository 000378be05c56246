"""Classes in groups of similar training counts, for figures in which every class by itself has no room."""

import numpy as np

N_BINS = 20


def count_bins(class_counts: np.ndarray, n_bins: int = N_BINS) -> list[np.ndarray]:
    """Classes by training count, largest first, cut into groups of about as many classes each.

    Classes of one count stay together, so that groups can be told by their counts: there may be fewer.

    Args:
        class_counts: (K,) training images of each class, K ≥ 1.
        n_bins: the most groups.

    Returns:
        Class indices of each group, none of them empty.
    """
    order = np.argsort(-class_counts, kind="stable")
    changes = np.flatnonzero(np.diff(class_counts[order])) + 1  # where a cut parts no equal counts
    if not len(changes):
        return [order]
    wanted = np.linspace(0, len(order), n_bins + 1)[1:-1]
    after = np.searchsorted(changes, wanted).clip(1, len(changes) - 1) if len(changes) > 1 else 0
    before = np.maximum(after - 1, 0)
    nearer = np.where(wanted - changes[before] <= changes[after] - wanted, before, after)
    return np.split(order, np.unique(changes[nearer]))


def bin_labels(class_counts: np.ndarray, bins: list[np.ndarray]) -> list[str]:
    """The training counts in each group: "1,000–640", or "7" where they are one."""
    labels = []
    for members in bins:
        high, low = class_counts[members].max(), class_counts[members].min()
        labels.append(f"{high:,}–{low:,}" if high > low else f"{high:,}")
    return labels
