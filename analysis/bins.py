"""Groups of classes with similar training counts, for figures without room for every class."""

import numpy as np

N_BINS = 20


def count_bins(class_counts: np.ndarray, n_bins: int = N_BINS) -> list[np.ndarray]:
    """Split classes by training count, largest first, into groups of about equal numbers of classes.

    Classes with the same count stay together if possible, so that counts identify the groups. Twice as many
    classes as a group holds, or more, are split by class id: splitting by accuracy would make groups that
    were low by chance seem to improve. There may be fewer than `n_bins` groups.

    Args:
        class_counts: (K,) training images of each class, K ≥ 1.
        n_bins: the most groups.

    Returns:
        Class indices of each group; no group is empty.
    """
    order = np.argsort(-class_counts, kind="stable")
    changes = np.flatnonzero(np.diff(class_counts[order])) + 1  # cuts that separate no equal counts
    if not len(changes):
        return _parted([order], class_counts, n_bins)
    wanted = np.linspace(0, len(order), n_bins + 1)[1:-1]
    after = np.searchsorted(changes, wanted).clip(1, len(changes) - 1) if len(changes) > 1 else 0
    before = np.maximum(after - 1, 0)
    nearer = np.where(wanted - changes[before] <= changes[after] - wanted, before, after)
    return _parted(np.split(order, np.unique(changes[nearer])), class_counts, n_bins)


def _parted(bins: list[np.ndarray], class_counts: np.ndarray, n_bins: int) -> list[np.ndarray]:
    """Split large groups of one count by class id, as long as there are groups to spare."""
    spare, of_each = n_bins - len(bins), len(class_counts) / n_bins
    parted = []
    for members in bins:
        parts = 1
        if np.ptp(class_counts[members]) == 0 and len(members) >= 2 * of_each:
            parts = min(int(len(members) / of_each), 1 + spare)
        spare -= parts - 1
        parted += np.array_split(members, parts)
    return parted


def bin_labels(class_counts: np.ndarray, bins: list[np.ndarray]) -> list[str]:
    """Range of training counts in each group: "1,000–640", or "7" for a single count.

    Groups that share a count also have their class ids: "7 (ids 0–49)".
    """
    ends = [(class_counts[members].max(), class_counts[members].min()) for members in bins]
    labels = []
    for (high, low), members in zip(ends, bins, strict=True):
        label = f"{high:,}–{low:,}" if high > low else f"{high:,}"
        shared = ends.count((high, low)) > 1
        labels.append(f"{label} (ids {members.min()}–{members.max()})" if shared else label)
    return labels
