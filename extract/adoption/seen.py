"""Whether weights that are named as pre-trained saw these very images; only files of ours can tell."""

from pathlib import Path

import numpy as np

from extract.checkpoints.checkpoint import Checkpoint, load_checkpoint
from extract.dataset import Dataset
from extract.networks.registry import is_weights_file
from extract.proof.record import recorded_images
from extract.training.how_far import is_marked
from store.notes import note

SEEN = "images_seen"  # in a checkpoint's config and a store's provenance, if there are any


def images_seen(weights: str | None, dataset: Dataset) -> int:
    """How many training images of a data set a checkpoint of ours was trained on; a note tells.

    Args:
        weights: `--weights`, a file or a name, or None.
        dataset: with the digest of every image.
    """
    if not is_weights_file(weights) or not is_marked(Path(weights)):
        return 0
    checkpoint = load_checkpoint(Path(weights))
    n_seen = _n_seen(checkpoint, Path(weights), dataset)
    if n_seen:
        n_train = len(dataset.splits["train"])
        note(
            f"{weights}: was trained on {n_seen:,} of these {n_train:,} training images, so their features "
            "flatter: a weight decay chosen by folds is too weak; keep a val split (--val-fraction)"
        )
    return n_seen


def _n_seen(checkpoint: Checkpoint, path: Path, dataset: Dataset) -> int:
    if checkpoint.adopted and checkpoint.fit is not None:  # its backbone is of other weights
        return int(checkpoint.config.get(SEEN, 0))
    train = dataset.splits["train"]
    if checkpoint.images is None or train.digest is None:  # of version 0.1
        return len(train) if checkpoint.fingerprint == dataset.fingerprint else 0
    theirs = recorded_images(checkpoint, path)["train"].digest
    digests = [np.ascontiguousarray(of).view(f"V{of.shape[1]}")[:, 0] for of in (train.digest, theirs)]
    return int(np.isin(*digests).sum())
