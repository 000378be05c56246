"""What a store records of how it was made."""

import os
import platform
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from extract.adoption.seen import SEEN
from extract.checkpoints.checkpoint import Checkpoint
from extract.config import ExtractConfig
from extract.device import Compute
from extract.proof.record import content_fingerprint
from extract.training.recorded import recorded
from store.provenance import as_utc, commit, now, versions
from store.storage.location import locate
from store.storage.s3 import Bucket

# Options of Phase I, besides network and data set, that determine its weights; the seed is kept apart.
TRAINING_OPTIONS = (
    "epochs",
    "batch_size",
    "lr",
    "schedule",
    "warmup_epochs",
    "weight_decay",
    "momentum",
    "recipe",
    "image_size",
    "precision",
    "mean",
    "std",
    "crop",
    "interpolation",
)
# Options that a checkpoint of ours determines; what they come to is recorded beside them.
OF_PHASE1 = ("network", "dataset", "image_size", "mean", "std", "crop", "interpolation")
OF_LAYERS = ("layers", "layer_dtype")  # recorded where maps of earlier layers are asked for
OF_PROCESS = ("part",)  # options that change nothing in the store
OF_ADOPTED = ("classifier", "seed", "weight_decay")  # options that only another program's network takes


def provenance_of(
    config: ExtractConfig, checkpoint: Checkpoint, ckpt: Path, digest: str, compute: Compute
) -> dict[str, Any]:
    """The provenance of a store.

    Args:
        config: the options.
        checkpoint: that the store is extracted with.
        ckpt: where its file is when the store is complete.
        digest: SHA-256 of the file.
        compute: where and how features are computed.
    """
    ckpt, where = ckpt.resolve(), locate(config.store)
    beside = ckpt if isinstance(where, Bucket) else os.path.relpath(ckpt, where.resolve().parent)
    return {
        "config": _asked(config, checkpoint),
        "begun": as_utc(now()),
        "host": platform.node(),
        "device": compute.device.type,
        "checkpoint": {
            "path": str(ckpt),
            "relative_path": str(beside),
            "sha256": digest,
            "epoch": checkpoint.epoch,
            "seed": checkpoint.config["seed"],
        },
        "training": _training(checkpoint),
        "network": checkpoint.network,
        "dataset": _data(checkpoint),
        "transform": checkpoint.transform,
        "versions": versions(),
        "commit": commit(),
    }


def _data(checkpoint: Checkpoint) -> dict[str, Any]:
    """Which images they are: the description, and its fingerprints."""
    of_images = {"fingerprint": checkpoint.fingerprint, "content": content_fingerprint(checkpoint)}
    if checkpoint.source_fingerprint is not None:
        of_images["source_fingerprint"] = checkpoint.source_fingerprint
    return checkpoint.dataset | of_images


def _training(checkpoint: Checkpoint) -> dict[str, Any]:
    """What Phase I's weights come of, besides network and data set."""
    own = {name: checkpoint.config.get(name) for name in TRAINING_OPTIONS} | recorded(
        checkpoint.config, checkpoint.history, sum(checkpoint.class_counts)
    )
    adopted = {name: checkpoint.config[name] for name in ("classifier", SEEN) if name in checkpoint.config}
    return own | (adopted if checkpoint.adopted else {})


def _asked(config: ExtractConfig, checkpoint: Checkpoint) -> dict[str, Any]:
    """The options of the extraction; those of network and images are recorded in the checkpoint's words."""
    own = {"ckpt": config.ckpt, "store": config.store}
    own |= {"arch": config.network.arch, "root": config.dataset.root}
    others = OF_PROCESS + (OF_PHASE1 if checkpoint.adopted else (*OF_PHASE1, *OF_ADOPTED))
    others += OF_LAYERS if config.layers is None else ()
    asked = asdict(config)
    return own | {f.name: asked[f.name] for f in fields(config) if f.name not in others}
