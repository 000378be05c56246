"""Classes in groups of similar training counts, for figures in which every class by itself has no room."""

import numpy as np

N_BINS = 20


def count_bins(class_counts: np.ndarray, n_bins: int = N_BINS) -> list[np.ndarray]:
    """Classes by training count, largest first, cut into groups of about as many classes each.

    Classes of one count stay together where they can, so that groups can be told by their counts. Twice the
    classes of a group and more are cut by class id: cut by accuracy, chance alone would make those that
    happened to be low rise. There may be fewer groups.

    Args:
        class_counts: (K,) training images of each class, K ≥ 1.
        n_bins: the most groups.

    Returns:
        Class indices of each group, none of them empty.
    """
    order = np.argsort(-class_counts, kind="stable")
    changes = np.flatnonzero(np.diff(class_counts[order])) + 1  # where a cut parts no equal counts
    if not len(changes):
        return _parted([order], class_counts, n_bins)
    wanted = np.linspace(0, len(order), n_bins + 1)[1:-1]
    after = np.searchsorted(changes, wanted).clip(1, len(changes) - 1) if len(changes) > 1 else 0
    before = np.maximum(after - 1, 0)
    nearer = np.where(wanted - changes[before] <= changes[after] - wanted, before, after)
    return _parted(np.split(order, np.unique(changes[nearer])), class_counts, n_bins)


def _parted(bins: list[np.ndarray], class_counts: np.ndarray, n_bins: int) -> list[np.ndarray]:
    """Large groups of one count cut by class id, as far as there are groups to spare."""
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
    """The training counts in each group: "1,000–640", or "7" where they are one.

    Of several groups of one count each tells its class ids too: "7 (ids 0–49)".
    """
    ends = [(class_counts[members].max(), class_counts[members].min()) for members in bins]
    labels = []
    for (high, low), members in zip(ends, bins, strict=True):
        label = f"{high:,}–{low:,}" if high > low else f"{high:,}"
        shared = ends.count((high, low)) > 1
        labels.append(f"{label} (ids {members.min()}–{members.max()})" if shared else label)
    return labels
