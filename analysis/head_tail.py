"""Head and tail classes by training count (paper, sec. 5.4)."""

import numpy as np


def head_and_tail(class_counts: np.ndarray, head_ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """The largest classes that together hold at least `head_ratio` of the training samples, and the rest.

    Args:
        class_counts: (K,) training samples of each class; ties are ordered by class index.
        head_ratio: h_r in (0, 1).

    Returns:
        Class indices of the two parts, each in descending order of training count.
    """
    order = np.argsort(-class_counts, kind="stable")
    # Counts are integers; comparing them as such keeps rounding from missing a ratio like 0.9.
    needed = np.ceil(head_ratio * class_counts.sum() - 1e-9)
    n_head = int(np.searchsorted(np.cumsum(class_counts[order]), needed)) + 1
    return order[:n_head], order[n_head:]
