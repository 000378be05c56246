"""Paired bootstrap: how far accuracies of heads on the same images may differ by the choice of the images."""

import numpy as np

from analysis.joined import joined

N_RESAMPLES = 2000


def resampled_accuracies(
    label: np.ndarray,
    right: np.ndarray,
    by: str,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    together: np.ndarray | None = None,
) -> np.ndarray:
    """Accuracies in % of several heads on resampled images: each class's own, drawn with replacement.

    Images that belong together (frames of a track, say) are drawn as a whole, in all their classes: a head
    that is right about one is mostly right about all, so they tell little more than one image would. Classes
    that such parts have in common are drawn from together; a class that a resample misses keeps its accuracy.

    All heads see the same resamples, so that their differences can be taken, and so do calls with the same
    labels, parts and seed. Deviations of a class are widened by √(n / (n − 1)) for n images, or n parts of
    such as belong together, whose spread is too small by that; that of a single one is not known, and counts
    as none.

    Args:
        label: (N,) int class of each image.
        right: (E, N) how often each head is right, 0 to 1; the mean over seeds, say.
        by: "balanced", the mean over classes that have images, or "overall", the share of images.
        n_resamples: R.
        seed: of the resamples.
        together: (N,) int, the same for images that belong together; None for none that do.

    Returns:
        (R, E) float64.
    """
    classes, counts = np.unique(label, return_counts=True)
    share = np.full(len(classes), 1 / len(classes)) if by == "balanced" else counts / counts.sum()
    share_of = dict(zip(classes.tolist(), share, strict=True))
    together = np.arange(len(label)) if together is None else together
    stratum = joined(label, together)  # one class, or all that parts have in common
    strata, first = np.unique(stratum, return_index=True)
    generator, found = np.random.default_rng(seed), np.zeros((n_resamples, len(right)))
    for one in strata[np.argsort(label[first])]:
        rows = np.flatnonzero(stratum == one)
        part = _numbered(together[rows])
        n_parts = part.max() + 1
        drawn = generator.multinomial(n_parts, np.full(n_parts, 1 / n_parts), size=n_resamples)
        for c in np.unique(label[rows]).tolist():
            of_class = label[rows] == c
            found += share_of[c] * _of_class(drawn, part[of_class], right[:, rows[of_class]])
    return 100 * found


def _numbered(together: np.ndarray) -> np.ndarray:
    """Parts counted from 0 in the order in which they appear."""
    _, first, part = np.unique(together, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[part]


def _of_class(drawn: np.ndarray, part: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(R, E) accuracies of a class of n images.

    Args:
        drawn: (R, P) how often each part was drawn.
        part: (n,) of each image.
        right: (E, n).
    """
    own, part = np.unique(part, return_inverse=True)
    n_right = np.zeros((len(own), len(right)))
    np.add.at(n_right, part, right.T.astype(np.float64))
    of_class = drawn[:, own]
    n_images = (of_class @ np.bincount(part))[:, None]
    mean, wider = right.mean(axis=1), np.sqrt(len(own) / max(1, len(own) - 1))
    accuracy = np.where(n_images > 0, of_class @ n_right / np.maximum(n_images, 1), mean)
    return mean + wider * (accuracy - mean)
