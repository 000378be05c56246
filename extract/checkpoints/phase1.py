"""The checkpoint that a store was extracted with, identified by digest, classes and FC layer."""

from pathlib import Path

import numpy as np

from extract.checkpoints.checkpoint import Checkpoint, file_digest, load_checkpoint
from store.errors import StoreError, UserError
from store.reader import FeatureStore
from store.schema import CLASSIFIER

SHOWN = 8  # hexadecimal digits of a digest


def load_phase1(store: FeatureStore, ckpts: list[Path]) -> Checkpoint:
    """Load the first of some checkpoint files whose digest is the one that the store records.

    Args:
        store: the store.
        ckpts: existing files, at least one.

    Raises:
        UserError: it is none of them, or the store was altered: its classes or its FC layer are not the
            checkpoint's.
    """
    recorded = _recorded_digest(store)
    path = next((path for path in ckpts if file_digest(path) == recorded), None)
    if path is None:
        found = file_digest(ckpts[0])
        raise UserError(
            f"{ckpts[0]}: is not the checkpoint that {store.path} was extracted with, or has changed since "
            f"(SHA-256 {found[:SHOWN]}…, the store records {recorded[:SHOWN]}…); point --ckpt at that one, "
            "or extract again"
        )
    checkpoint = load_checkpoint(path)
    _check_same_classes(store, checkpoint, path)
    _check_same_classifier(store, checkpoint, path)
    return checkpoint


def _recorded_digest(store: FeatureStore) -> str:
    try:
        return str(store.provenance["checkpoint"]["sha256"])
    except (KeyError, TypeError) as error:
        raise StoreError(
            f"{store.path}: provenance does not say which checkpoint it was extracted with; extract again"
        ) from error


def _check_same_classes(store: FeatureStore, checkpoint: Checkpoint, path: Path) -> None:
    ours, theirs = store.class_names, checkpoint.class_names
    if len(ours) != len(theirs):
        raise StoreError(
            f"{store.path}: has {len(ours)} classes, but {path} has {len(theirs)}; extract again with it"
        )
    unlike = [k for k in range(len(ours)) if ours[k] != theirs[k]]
    if unlike:
        k = unlike[0]
        what = "the same classes in another order" if sorted(ours) == sorted(theirs) else "other classes"
        raise StoreError(
            f"{store.path}: has {what} than {path}: class {k} is {ours[k][:40]!r} where the checkpoint's is "
            f"{theirs[k][:40]!r} ({len(unlike)} of {len(ours)} differ); extract again with it"
        )


def _check_same_classifier(store: FeatureStore, checkpoint: Checkpoint, path: Path) -> None:
    for name, ours in zip(CLASSIFIER, store.classifier, strict=True):
        tensor = checkpoint.state.get(f"classifier.{name}")
        theirs = np.empty(0) if tensor is None else tensor.float().numpy()
        if ours.shape != theirs.shape:
            raise StoreError(
                f"{store.path}: classifier/{name} is {ours.shape} where the FC layer of {path} is "
                f"{theirs.shape}; extract again with it"
            )
        unlike = np.argwhere(ours != theirs)
        if len(unlike):
            at = tuple(unlike[0].tolist())
            raise StoreError(
                f"{store.path}: classifier/{name} is {ours[at]:.6g} at {at} where the FC layer of {path} has "
                f"{theirs[at]:.6g} ({len(unlike):,} of {ours.size:,} values differ); extract again with it"
            )
