"""Paired bootstrap: how far accuracies of heads on the same images may differ by the choice of the images."""

import numpy as np

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

    Images that belong together (frames of a track, say) are drawn together: a head that is right about one
    is mostly right about all, so they tell little more than one image would.

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
    generator, found = np.random.default_rng(seed), np.zeros((n_resamples, len(right)))
    for c, n_images, of_class in zip(classes, counts, share, strict=True):
        rows = np.flatnonzero(label == c)
        part = np.arange(n_images) if together is None else np.unique(together[rows], return_inverse=True)[1]
        sizes = np.bincount(part)
        n_parts = len(sizes)
        n_right = np.zeros((n_parts, len(right)))
        np.add.at(n_right, part, right[:, rows].T.astype(np.float64))
        drawn = generator.multinomial(n_parts, np.full(n_parts, 1 / n_parts), size=n_resamples)
        mean, wider = right[:, rows].mean(axis=1), np.sqrt(n_parts / max(1, n_parts - 1))
        found += of_class * (mean + wider * (drawn @ n_right / (drawn @ sizes)[:, None] - mean))
    return 100 * found
