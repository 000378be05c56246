"""Folds of training rows: each image is held out once, together with all that belongs to it.

Views of an image, copies of a file and images of one group (a track, a patient, a burst) are in one fold, or
a fit would have seen what it is scored on.
"""

import numpy as np

TRAIN_ONLY = -1  # the fold of rows that are never held out


def folds_of(
    label: np.ndarray, together: np.ndarray, n_folds: int, keys: np.ndarray | None = None
) -> np.ndarray:
    """The fold of each row; stratified: the rows of every class are spread evenly.

    Rows that belong together are never held out (TRAIN_ONLY) if a class would else have no row to train on:
    those of a class with a single image, for example.

    Args:
        label: (N,) int classes.
        together: (N,) int, the same for rows that belong together; see `analysis.joined`.
        n_folds: 2 or more.
        keys: (N,) numbers by which images are dealt to the folds; None deals them in the order of the rows.

    Returns:
        (N,) int64, 0 to n_folds − 1, or TRAIN_ONLY.
    """
    parts = _Parts(label, together)
    of_classes = parts.by_class()
    alone = np.unique([of_class[0] for of_class in of_classes if len(of_class) == 1])
    fold = parts.dealt(n_folds, np.arange(len(label)) if keys is None else keys, alone.astype(int))
    for of_class in of_classes:
        if len(np.unique(fold[of_class])) == 1:
            fold[of_class[0]] = TRAIN_ONLY
    return fold[parts.of_row]


class _Parts:
    """Parts of the rows: P sets of rows that belong together.

    Attributes:
        of_row: (N,) int64, the part of each row.
    """

    def __init__(self, label: np.ndarray, together: np.ndarray):
        self._first, self.of_row, self._n_rows = np.unique(
            together, return_index=True, return_inverse=True, return_counts=True
        )[1:]
        self._of_class = np.bincount(label)  # rows
        n_classes = len(self._of_class)
        pairs, self._sizes = np.unique(self.of_row * n_classes + label, return_counts=True)
        self._part, self._class = np.divmod(pairs, n_classes)  # of each pair of a part and a class in it

    def by_class(self) -> list[np.ndarray]:
        """The parts with rows of a class, for every class with rows, in the order of the rows."""
        order = np.lexsort((self._first[self._part], self._class))
        starts = np.flatnonzero(np.diff(self._class[order])) + 1
        return np.split(self._part[order], starts)

    def dealt(self, n_folds: int, keys: np.ndarray, alone: np.ndarray) -> np.ndarray:
        """(P,) the fold of each part: that which has the fewest rows of its classes so far, then of all.

        Large parts are dealt first, so that small ones even out what those left; parts in `alone` are not.
        """
        starts = np.searchsorted(self._part, np.arange(len(self._first) + 1)).tolist()
        classes, sizes = self._class.tolist(), self._sizes.tolist()
        shares = (1 / self._of_class[self._class]).tolist()
        held = [[0] * n_folds for _ in self._of_class]  # rows of a class, by fold
        in_all, n_rows = [0] * n_folds, self._n_rows.tolist()
        fold = np.full(len(self._first), TRAIN_ONLY)
        order = np.lexsort((keys[self._first], -self._n_rows))
        for part in order[~np.isin(order, alone)].tolist():
            pairs = range(starts[part], starts[part + 1])
            crowd = [sum(sizes[i] * held[classes[i]][f] * shares[i] for i in pairs) for f in range(n_folds)]
            chosen = min(range(n_folds), key=lambda f: (crowd[f], in_all[f]))
            fold[part] = chosen
            in_all[chosen] += n_rows[part]
            for i in pairs:
                held[classes[i]][chosen] += sizes[i]
        return fold


def images_of(view: np.ndarray) -> np.ndarray:
    """(N,) the image of each row of a split, given the rows' views (N,): images are counted from 0."""
    return np.cumsum(view == 0) - 1
