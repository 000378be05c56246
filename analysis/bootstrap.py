"""Paired bootstrap: how far accuracies of heads on the same images may differ by the choice of the images."""

import numpy as np

N_RESAMPLES = 2000


def resampled_accuracies(
    label: np.ndarray, right: np.ndarray, by: str, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Accuracies in % of several heads on resampled images: each class's own, drawn with replacement.

    All heads see the same resamples, so that their differences can be taken, and so do calls with the same
    labels and seed. Deviations of a class are widened by √(n / (n − 1)), for the spread of n images is too
    small by that; that of a single image is not known, and counts as none.

    Args:
        label: (N,) int class of each image.
        right: (E, N) how often each head is right, 0 to 1; the mean over seeds, say.
        by: "balanced", the mean over classes that have images, or "overall", the share of images.
        n_resamples: R.
        seed: of the resamples.

    Returns:
        (R, E) float64.
    """
    classes, counts = np.unique(label, return_counts=True)
    share = np.full(len(classes), 1 / len(classes)) if by == "balanced" else counts / counts.sum()
    generator, found = np.random.default_rng(seed), np.zeros((n_resamples, len(right)))
    for c, n_images, of_class in zip(classes, counts, share, strict=True):
        drawn = generator.multinomial(n_images, np.full(n_images, 1 / n_images), size=n_resamples)
        of_images = right[:, label == c].T.astype(np.float64)
        mean, wider = of_images.mean(axis=0), np.sqrt(n_images / max(1, n_images - 1))
        found += of_class * (mean + wider * (drawn @ of_images / n_images - mean))
    return 100 * found
