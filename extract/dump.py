"""The one pass over the images that fills a feature store."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from extract.cam import class_activation_maps
from extract.checkpoint import file_digest
from extract.config import ExtractConfig
from extract.device import Compute, make_deterministic, resolve_device
from extract.inference import by_class, feature_maps
from extract.networks import pool
from extract.restore import Restored, restore
from store.atomic import refuse_existing, whole_folder
from store.errors import StoreError, UserError, check_at_least
from store.provenance import versions
from store.writer import StoreWriter
from store.zarr_store import foreign_to_store

# Options of Phase I, besides network and data set, that make its weights what they are; the seed is apart.
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
)


def extract(config: ExtractConfig, progress: Progress) -> dict[str, tuple[int, ...]]:
    """Bring every image through the network once and write the store.

    Rows are sorted by label and place in the source. The store appears when it is complete.

    Returns:
        The shape (N, H, W, C) or, without maps, (N, C) of what each split holds.

    Raises:
        UserError: a checkpoint, image, or path that cannot be used.
    """
    path = Path(config.store)
    if path.suffix != ".zarr":
        raise StoreError(
            f"{path}: unknown container {path.suffix or '(no suffix)'!r}; expected a path ending in .zarr"
        )
    refuse_existing(path, "store", foreign_to_store, config.overwrite)
    check_at_least(config, batch_size=1, workers=0)
    compute = Compute(resolve_device(config.device), config.precision, config.batch_size, config.workers)
    make_deterministic()
    restored = restore(Path(config.ckpt), config.root, progress)
    if restored.checkpoint.finetuned:
        raise UserError(
            f"{config.ckpt}: its FC layer was fine-tuned, and Phase II starts from Phase I's; extract with "
            "the checkpoint.pt that `train` wrote"
        )
    restored.network.to(compute.device, memory_format=compute.memory_format)
    classifier = restored.network.classifier
    with whole_folder(path) as unfinished:
        provenance = _provenance(config, restored, path)
        writer = StoreWriter(unfinished, restored.dataset.class_names, provenance, config.map_dtype)
        writer.write_classifier(*(p.detach().cpu().numpy() for p in (classifier.weight, classifier.bias)))
        shapes = {
            split: _dump(writer, restored, split, compute, progress) for split in restored.dataset.splits
        }
        writer.finish()
    return shapes


def _dump(
    writer: StoreWriter, restored: Restored, split: str, compute: Compute, progress: Progress
) -> tuple[int, ...]:
    images = by_class(restored.dataset.splits[split])
    label = torch.from_numpy(images.label)
    weight = restored.network.classifier.weight.detach()
    task = progress.add_task(f"extracting {split}", total=len(images), status="")
    start, shape = 0, ()
    for maps in feature_maps(restored.network, images, restored.transform, compute):
        stop = start + len(maps)
        rows = {
            "label": images.label[start:stop],
            "sample_index": images.sample_index[start:stop],
            "view": np.zeros(len(maps), np.int16),
            "pooled": pool(maps).cpu().numpy(),
        }
        channels_last = maps.permute(0, 2, 3, 1).float()
        if split == "train":
            cam = class_activation_maps(channels_last, weight, label[start:stop].to(compute.device))
            rows |= {"feature_map": channels_last.cpu().numpy(), "cam": cam.cpu().numpy()}
        _refuse_overflow(rows, writer.map_dtype, split)
        if start == 0:
            sizes = dict(zip("NHWC", (len(images), *channels_last.shape[1:]), strict=True))
            writer.create_split(split, sizes)
            shape = tuple(sizes[axis] for axis in ("NHWC" if split == "train" else "NC"))
        writer.append(split, **rows)
        start = stop
        progress.update(task, completed=stop)
    return shape


def _refuse_overflow(rows: dict[str, np.ndarray], map_dtype: str, split: str) -> None:
    if not np.isfinite(rows["pooled"]).all():
        raise UserError(
            f"{split}: the network's features are not finite; its weights are of no use, train again"
        )
    if "feature_map" in rows and np.abs(rows["feature_map"]).max() > np.finfo(map_dtype).max:
        raise UserError(f"{split}: feature maps exceed the range of {map_dtype}; pass --map-dtype float32")


def _provenance(config: ExtractConfig, restored: Restored, path: Path) -> dict[str, Any]:
    ckpt = Path(config.ckpt).resolve()
    checkpoint = restored.checkpoint
    return {
        "config": asdict(config),
        "checkpoint": {
            "path": str(ckpt),
            "relative_path": os.path.relpath(ckpt, path.resolve().parent),
            "sha256": file_digest(ckpt),
            "epoch": checkpoint.epoch,
            "seed": checkpoint.config["seed"],
        },
        "training": {name: checkpoint.config[name] for name in TRAINING_OPTIONS},
        "network": checkpoint.network,
        "dataset": checkpoint.dataset | {"fingerprint": checkpoint.fingerprint},
        "transform": checkpoint.transform,
        "versions": versions(),
    }
