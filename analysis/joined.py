"""Rows that belong together: images of one group, copies of a file, views of an image."""

import numpy as np


def joined(*shared: np.ndarray) -> np.ndarray:
    """Number the rows so that those which share something have the same number, at one remove too.

    Args:
        shared: what rows may share, at least one array: (N,) or (N, T), a value for each row.

    Returns:
        (N,) int64.
    """
    numbers = [np.unique(of, axis=0, return_inverse=True)[1].reshape(-1) for of in shared]
    together = numbers[0]
    while True:
        before = together
        for number in numbers:
            lowest = np.full(number.max() + 1, len(number))
            np.minimum.at(lowest, number, together)
            together = lowest[number]
        if (together == before).all():
            return together
