"""The one pass over the images that fills a feature store."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from extract.adoption.beside_store import adopted, checkpoint_beside
from extract.adoption.options import check_phase1_options, foreign, is_adoption
from extract.cam import class_activation_maps
from extract.checkpoints.checkpoint import file_digest
from extract.checkpoints.restore import Restored, restore
from extract.config import ExtractConfig
from extract.device import Compute, keep_freed_memory, make_deterministic, resolve_device, use_device
from extract.images.image_set import ImageSet
from extract.images.transforms import Transform
from extract.images.views import check_views, with_views
from extract.inference import by_class, numbered_maps
from extract.networks.parts import Network, pool
from extract.provenance import provenance_of
from extract.training.how_far import is_marked
from store.arrays.dtypes import NUMPY, largest
from store.arrays.image_names import DIGEST, NAME, names_as_bytes
from store.drafts.lifecycle import check_writable, is_finished
from store.errors import CheckpointError, UserError
from store.layout import store_layout
from store.spec import StoreSpec
from store.storage.location import locate
from store.storage.s3 import Bucket
from store.writer import StoreWriter, write_store

BUFFERED_AS = {  # as the writer takes them; of lossy dtypes it computes the scales itself
    "float16": torch.float16,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "int8": torch.float32,
    "float8_e4m3": torch.float32,
}


def extract(config: ExtractConfig, progress: Progress) -> dict[str, tuple[int, ...]]:
    """Run every view of every image through the network once, and write the store.

    Rows are sorted by label, position in the source, and view. The store appears when it is complete. With
    `resume`, only what an interrupted extraction did not write is computed; the result has the same bytes.

    Returns:
        The shape of each split's features: (N, H, W, C) or, without maps, (N, C).

    Raises:
        UserError: a checkpoint, image, or path that cannot be used.
        Interrupted: Ctrl-C, once there is something to resume.
    """
    where = locate(config.store)
    check_writable(where, config.resume, config.overwrite)
    config.check()
    check_phase1_options(config)
    check_views(config)
    device = use_device(resolve_device(config.device))
    compute = Compute(device, config.precision, config.batch_size, config.workers)
    make_deterministic()
    keep_freed_memory()
    with _phase1(config, where, compute, progress) as (restored, ckpt, digest):
        restored.network.to(compute.device, memory_format=compute.memory_format)
        splits = store_splits(restored, config.views)
        made = provenance_of(config, restored.checkpoint, ckpt, digest, compute)
        spec = _spec(config, restored, splits, compute, made)
        if not (config.resume and is_finished(where, spec, config.overwrite)):
            with write_store(where, spec, config.resume, config.overwrite) as writer:
                fill(writer, restored, splits, compute, progress)
    return {
        split: spec.layouts[f"{split}/{'feature_map' if split == 'train' else 'pooled'}"].shape
        for split in splits
    }


@contextmanager
def _phase1(
    config: ExtractConfig, where: Path | Bucket, compute: Compute, progress: Progress
) -> Iterator[tuple[Restored, Path, str]]:
    """Phase I, where its checkpoint is once the store is complete, and the SHA-256 of that."""
    if is_adoption(config):
        with adopted(config, where, compute, progress) as (restored, held):
            yield restored, checkpoint_beside(where), file_digest(held)
        return
    ckpt = Path(config.ckpt)
    try:
        restored = restore(ckpt, config.dataset.root, progress, arch=config.network.arch)
    except CheckpointError as error:
        raise error if is_marked(ckpt) else foreign(error) from error
    if restored.checkpoint.finetuned:
        raise UserError(
            f"{config.ckpt}: its FC layer was fine-tuned, but Phase II starts from Phase I's; extract with "
            "the checkpoint.pt that `train` wrote"
        )
    yield restored, ckpt, file_digest(ckpt)


def store_splits(restored: Restored, n_views: int) -> dict[str, ImageSet]:
    """The splits in a store's row order, with `n_views` views of each training image."""
    splits = {split: by_class(images) for split, images in restored.dataset.splits.items()}
    if n_views > 1:
        splits["train"] = with_views(splits["train"], restored.checkpoint.config["seed"], n_views)
    return splits


def fill(
    writer: StoreWriter,
    restored: Restored,
    splits: dict[str, ImageSet],
    compute: Compute,
    progress: Progress,
) -> None:
    """Write everything that is missing in a store, and finish it; splits are in the store's row order."""
    writer.write_known(_known(restored.network, splits))
    for split, images in splits.items():
        _dump(writer, restored, images, split, compute, progress)
    writer.finish()


def _spec(
    config: ExtractConfig,
    restored: Restored,
    splits: dict[str, ImageSet],
    compute: Compute,
    provenance: dict[str, Any],
) -> StoreSpec:
    sizes = axis_lengths(restored.network, splits, restored.transform, compute)
    class_names = restored.dataset.class_names
    layouts = store_layout(
        sizes, len(class_names), config.dtype, config.batch_size, config.codec, n_views=config.views
    )
    identity = {
        "checkpoint": provenance["checkpoint"]["sha256"],
        "data set": provenance["dataset"]["fingerprint"],
        "transform": provenance["transform"],
        "precision": config.precision,
        "device": provenance["device"],  # GPUs round differently, and --resume promises the same bytes
        "dtype": config.dtype,
        "codec": config.codec,
        "batch size": config.batch_size,
        "number of views": config.views,
    }
    return StoreSpec(layouts, config.dtype, class_names, provenance, json.loads(json.dumps(identity)))


@torch.inference_mode()
def axis_lengths(
    network: Network, splits: dict[str, ImageSet], transform: Transform, compute: Compute
) -> dict[str, dict[str, int]]:
    """Lengths of the axes N, H, W, C of each split, found with one blank image.

    A row is a view: N is the number of images times the number of views. If digests and names of images are
    known, D is the length of a digest and T that of the longest name.
    """
    blank = torch.zeros(1, 3, transform.image_size, transform.image_size, device=compute.device)
    channels, height, width = network.features(blank).shape[1:]
    sizes = {}
    for split, images in splits.items():
        sizes[split] = {"N": len(images) * images.n_views, "H": height, "W": width, "C": channels}
        if images.digest is not None:
            sizes[split]["D"] = images.digest.shape[1]
        if images.name is not None:
            sizes[split]["T"] = images.name.dtype.itemsize
    return sizes


def _known(network: Network, splits: dict[str, ImageSet]) -> dict[str, np.ndarray]:
    """Every array that is known before the network runs, by path."""
    classifier = network.classifier
    known = {
        f"classifier/{name}": getattr(classifier, name).detach().cpu().numpy() for name in ("weight", "bias")
    }
    for split, images in splits.items():
        known |= {f"{split}/{name}": values for name, values in row_names(images).items()}
        known |= {f"{split}/{name}": values for name, values in row_images(images).items()}
    return known


def row_names(images: ImageSet) -> dict[str, np.ndarray]:
    """Label, source index and view of each row of a split, each (N,): a row for every view of every image."""
    n_views = images.n_views
    return {
        "label": np.repeat(images.label, n_views),
        "sample_index": np.repeat(images.sample_index, n_views),
        "view": np.tile(np.arange(n_views), len(images)),
    }


def _dump(
    writer: StoreWriter,
    restored: Restored,
    images: ImageSet,
    split: str,
    compute: Compute,
    progress: Progress,
) -> None:
    """Write the missing rows of a split, batch by batch of images and view by view."""
    n_views = images.n_views  # the layout makes a block of whole images
    task = progress.add_task(f"extracting {split}", total=len(images) * n_views, status="")
    blocks = [(start // n_views, stop // n_views) for start, stop in writer.missing(split)]
    missing = np.concatenate([np.arange(0), *(np.arange(*block) for block in blocks)])
    if not len(missing):
        progress.update(task, completed=len(images) * n_views)
        return
    progress.update(task, completed=int(missing[0]) * n_views)
    if len(missing) < len(images):
        images = images.take(missing)
    label = torch.from_numpy(images.label)
    weight = restored.network.classifier.weight.detach()
    for start, view, maps in numbered_maps(restored.network, images, restored.transform, compute):
        of_batch = label[start : start + len(maps)] if split == "train" else None
        if split == "train":
            _check_range(maps, writer.map_dtype)
        rows = batch_rows(maps, weight, of_batch, BUFFERED_AS[writer.map_dtype])
        _check_finite(rows["pooled"], split)
        writer.write(split, int(missing[start]) * n_views + view, rows, every=n_views)
        progress.advance(task, len(maps))


def row_images(images: ImageSet) -> dict[str, np.ndarray]:
    """Digest (N, 16) and name (N, T) of each row's image, uint8 by array name, if they are known."""
    known = {} if images.digest is None else {DIGEST: images.digest}
    if images.name is not None:
        known[NAME] = names_as_bytes(images.name)
    return {name: np.repeat(values, images.n_views, axis=0) for name, values in known.items()}


def batch_rows(
    maps: torch.Tensor,
    weight: torch.Tensor,
    label: torch.Tensor | None,
    map_dtype: torch.dtype = torch.float32,
) -> dict[str, np.ndarray]:
    """The arrays that a store holds of one batch, by name, on the host; float32 except for the maps.

    Args:
        maps: (B, C, H, W) feature maps.
        weight: (K, C) of the FC layer.
        label: (B,) int64 of training images; None for others, which have only pooled features.
        map_dtype: dtype that maps are rounded to before they leave the device.
    """
    rows = {"pooled": pool(maps).cpu().numpy()}
    if label is not None:
        channels_last = maps.permute(0, 2, 3, 1)
        cam = class_activation_maps(channels_last, weight, label.to(maps.device))
        rounded = channels_last.to(map_dtype, memory_format=torch.contiguous_format).cpu()
        if map_dtype == torch.bfloat16:  # torch cannot convert it to numpy
            rows["feature_map"] = rounded.view(torch.int16).numpy().view(NUMPY["bfloat16"])
        else:
            rows["feature_map"] = rounded.numpy()
        rows["cam"] = cam.cpu().numpy()
    return rows


def _check_finite(pooled: np.ndarray, split: str) -> None:
    if not np.isfinite(pooled).all():
        raise UserError(
            f"{split}: the network's features are not finite, so its weights are useless; train again"
        )


def _check_range(maps: torch.Tensor, map_dtype: str) -> None:
    """Raise UserError for features beyond a dtype's range, found in one pass on the device."""
    if max(abs(float(extreme)) for extreme in maps.aminmax()) > largest(map_dtype):
        raise UserError(f"train: feature maps exceed the range of {map_dtype}; pass --dtype float32")
