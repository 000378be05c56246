"""Whether weights that are named as pre-trained saw these very images; only files of ours can tell."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from extract.checkpoints.checkpoint import Checkpoint, file_digest, load_checkpoint
from extract.dataset import Dataset
from extract.networks.registry import is_weights_file
from extract.proof.record import recorded_images
from extract.training.interrupted.how_far import is_marked
from store.notes import note

SEEN = "images_seen"  # in a checkpoint's config and a store's provenance, if there are any


def images_seen(weights: str | None, dataset: Dataset) -> int:
    """How many training images of a data set a checkpoint of ours was trained on; a note tells.

    A checkpoint that began with another of ours (`train --weights`) counts what that one saw too, as long as
    its file is there. Images are compared by digest: other bytes are another image.

    Args:
        weights: `--weights`, a file or a name, or None.
        dataset: with the digest of every image.
    """
    n_train = len(dataset.splits["train"])
    is_seen = np.zeros(n_train, bool)
    for path, checkpoint in _trainings(weights):
        is_seen |= _seen_by(checkpoint, path, dataset)
    n_seen = int(is_seen.sum())
    if n_seen:
        note(
            f"--weights: was trained on {n_seen:,} of these {n_train:,} training images, so their features "
            "flatter: a weight decay chosen by folds is too weak; keep a val split (--val-fraction)"
        )
    return n_seen


def _trainings(weights: str | None) -> Iterator[tuple[Path, Checkpoint]]:
    """The checkpoint of ours that a file is, the one that it began with, and so on."""
    digest = None
    while is_weights_file(weights) and Path(weights).is_file() and is_marked(Path(weights)):
        path = Path(weights)
        if digest is not None and file_digest(path) != digest:
            return  # another file than training began with
        checkpoint = load_checkpoint(path)
        yield path, checkpoint
        weights, digest = (checkpoint.network.get(name) for name in ("weights", "weights_digest"))
        if digest is None:
            return


def _seen_by(checkpoint: Checkpoint, path: Path, dataset: Dataset) -> np.ndarray:
    """(N,) bool, which training images of a data set a checkpoint was trained on."""
    train = dataset.splits["train"]
    if checkpoint.adopted and checkpoint.fit is not None and not checkpoint.config.get(SEEN):
        # Its backbone is of other weights, which saw none of the images that its classifier was fitted on.
        return np.zeros(len(train), bool)
    if checkpoint.images is None or train.digest is None:  # of version 0.1
        return np.full(len(train), checkpoint.fingerprint == dataset.fingerprint)
    theirs = recorded_images(checkpoint, path)["train"].digest
    digests = [np.ascontiguousarray(of).view(f"V{of.shape[1]}")[:, 0] for of in (train.digest, theirs)]
    return np.isin(*digests)
