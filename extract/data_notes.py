"""What a user should know of a data set before it is trained on, as notes of one line each."""

import numpy as np

from extract.dataset import Dataset
from store.notes import note

SHOWN = 5  # class names in a note


def note_empty_classes(dataset: Dataset) -> None:
    """Say which training classes have no images in a held-out split, where nothing is measured of them."""
    for name, split in dataset.splits.items():
        n_images = np.bincount(split.label, minlength=len(dataset.class_names))
        empty = [dataset.class_names[k] for k in np.flatnonzero(n_images == 0)]
        if empty:
            names = ", ".join(empty[:SHOWN]) + (", …" if len(empty) > SHOWN else "")
            note(
                f"{len(empty)} of {len(n_images)} classes have no {name} images ({names}): accuracies on "
                f"{name} say nothing of them"
            )
