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
from extract.checkpoints.checkpoint import file_digest
from extract.checkpoints.restore import Restored, restore
from extract.classifier.accuracy import tell_fitted_accuracy
from extract.classifier.in_store import (
    PENDING,
    ROOM,
    backbone_digest,
    check_fittable,
    fit_in_store,
    is_fitted,
    put_checkpoint,
)
from extract.config import ExtractConfig
from extract.device import Compute, keep_freed_memory, make_deterministic, use_device
from extract.images.image_set import ImageSet
from extract.images.transforms import Transform
from extract.images.views import check_views, with_views
from extract.images.workers import keep_workers
from extract.inference.passes import by_class
from extract.inner_layers.stored import IDENTITY, in_words, layer_shapes, stored_layers
from extract.networks.parts import Network
from extract.parts.options import part_of
from extract.parts.write import check_place, opened_writer
from extract.provenance import provenance_of
from extract.rows import check_rows, computed_rows
from extract.torchrun.device import device_of_rank
from extract.training.interrupted.how_far import is_marked
from store.arrays.image_names import DIGEST, GROUP, NAME, names_as_bytes
from store.errors import CheckpointError, UserError
from store.layout import store_layout
from store.parts.writer import PartWriter
from store.reader import FeatureStore
from store.schema import CLASSIFIER, maps_name
from store.spec import StoreSpec
from store.storage.location import locate
from store.storage.s3 import Bucket
from store.writer import StoreWriter


def extract(config: ExtractConfig, progress: Progress) -> dict[str, tuple[int, ...]]:
    """Run every view of every image through the network once, and write the store.

    Rows are sorted by label, position in the source, and view. The store appears when it is complete. With
    `resume`, only what an interrupted extraction did not write is computed; the result has the same bytes.
    With `part`, or under torchrun, this process writes its share of the blocks.

    Returns:
        The shape of each split's features: (N, H, W, C) or, without maps, (N, C); then those of earlier
        layers' maps, by path. Nothing if the store is not complete yet, or another of torchrun's processes
        has completed it.

    Raises:
        UserError: a checkpoint, image, or path that cannot be used.
        Interrupted: Ctrl-C, once there is something to resume.
    """
    where = locate(config.store)
    part = part_of(config)
    check_place(where, config, part)
    config.check()
    check_phase1_options(config)
    check_views(config)
    device = use_device(device_of_rank(config.device))
    compute = Compute(device, config.precision, config.batch_size, config.workers)
    make_deterministic()
    keep_freed_memory()
    with _phase1(config, where, compute, progress) as (restored, ckpt, held):
        restored.network.to(compute.device, memory_format=compute.memory_format)
        splits = store_splits(restored, config.views)
        if is_fitted(restored):
            check_fittable(splits["train"], "val" in splits, config.weight_decay)
        digest = PENDING if is_fitted(restored) else file_digest(held)
        made = provenance_of(config, restored.checkpoint, ckpt, digest, compute)
        spec = _spec(config, restored, splits, compute, made)
        with opened_writer(where, spec, config, part) as writer:
            if writer is not None:
                fill(writer, restored, splits, compute, progress)
                if is_fitted(restored):
                    fit_in_store(writer, held, config.weight_decay, compute.device, progress)
                writer.finish()
            elif is_fitted(restored):
                put_checkpoint(FeatureStore(where), held)
    if isinstance(writer, PartWriter) and not writer.completed:
        return {}
    if is_fitted(restored):
        tell_fitted_accuracy(FeatureStore(where))
    arrays = {split: f"{split}/{'feature_map' if split == 'train' else 'pooled'}" for split in splits}
    arrays |= {path: path for path in (f"train/{maps_name(layer)}" for layer in spec.layer_dtypes)}
    return {name: spec.layouts[path].shape for name, path in arrays.items()}


@contextmanager
def _phase1(
    config: ExtractConfig, where: Path | Bucket, compute: Compute, progress: Progress
) -> Iterator[tuple[Restored, Path, Path]]:
    """Phase I, where its checkpoint is once the store is complete, and where it is until then."""
    if is_adoption(config):
        with adopted(config, where, compute, progress) as (restored, held):
            yield restored, checkpoint_beside(where), held
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
    yield restored, ckpt, ckpt


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
    """Write everything that is missing in a store; splits are in the store's row order.

    A classifier that is fitted is not known yet, and neither are its class activation maps.
    """
    writer.write_known(_known(None if is_fitted(restored) else restored.network, splits))
    with keep_workers():
        for split, images in splits.items():
            _dump(writer, restored, images, split, compute, progress)


def _spec(
    config: ExtractConfig,
    restored: Restored,
    splits: dict[str, ImageSet],
    compute: Compute,
    provenance: dict[str, Any],
) -> StoreSpec:
    sizes = axis_lengths(restored.network, splits, restored.transform, compute)
    class_names = restored.dataset.class_names
    shapes = layer_shapes(config, restored.network, restored.transform.image_size, compute.device)
    layers = stored_layers(config, shapes, config.dtype, config.codec)
    layouts = store_layout(
        sizes,
        len(class_names),
        config.dtype,
        config.batch_size,
        config.codec,
        n_views=config.views,
        layers=layers,
    )
    dtypes = {layer: maps.dtype for layer, maps in layers.items()}
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
    } | ({IDENTITY: in_words(dtypes)} if layers else {})
    if is_fitted(restored):
        identity |= {"checkpoint": backbone_digest(restored.network), "weight decay": config.weight_decay}
        provenance = provenance | ROOM
    identity = json.loads(json.dumps(identity))
    return StoreSpec(layouts, config.dtype, class_names, provenance, identity, dtypes)


@torch.inference_mode()
def axis_lengths(
    network: Network, splits: dict[str, ImageSet], transform: Transform, compute: Compute
) -> dict[str, dict[str, int]]:
    """Lengths of the axes N, H, W, C of each split, found with one blank image.

    A row is a view: N is the number of images times the number of views. If digests, names or groups of
    images are known, D is the length of a digest, T that of the longest name, and G of the longest group.
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
        if images.group is not None:
            sizes[split]["G"] = images.group.dtype.itemsize
    return sizes


def _known(network: Network | None, splits: dict[str, ImageSet]) -> dict[str, np.ndarray]:
    """Every array that is known before the network runs, by path; without a network no FC layer's."""
    known = {
        f"classifier/{name}": getattr(network.classifier, name).detach().cpu().numpy()
        for name in CLASSIFIER
        if network is not None
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
    progress.update(task, completed=(len(images) - len(missing)) * n_views)  # or another part's
    if len(missing) < len(images):
        images = images.take(missing)
    network, transform, dtype = restored.network, restored.transform, writer.map_dtype
    layers = writer.layer_dtypes if split == "train" else {}
    batches = computed_rows(network, images, transform, compute, dtype if split == "train" else None, layers)
    for start, view, computed in batches:
        rows = check_rows(computed, split, dtype, layers)
        if is_fitted(restored):
            rows.pop("cam", None)  # of an FC layer that is not fitted yet
        writer.write(split, int(missing[start]) * n_views + view, rows, every=n_views)
        progress.advance(task, len(rows["pooled"]))


def row_images(images: ImageSet) -> dict[str, np.ndarray]:
    """Digest (N, 16), name (N, T) and group (N, G) of each row's image, uint8, by name, if they are known."""
    known = {} if images.digest is None else {DIGEST: images.digest}
    if images.name is not None:
        known[NAME] = names_as_bytes(images.name)
    if images.group is not None:
        known[GROUP] = names_as_bytes(images.group)
    return {name: np.repeat(values, images.n_views, axis=0) for name, values in known.items()}
