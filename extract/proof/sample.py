"""Checking that a store's rows are of the images that they claim: some are extracted again and compared.

Checksums and invariants also hold for rows that were swapped, or that came from another network or transform,
before they were written. Image and label are compared for all rows, features for a sample.

Two computations of an image are not bit-identical: other batch sizes, processors and precisions round
differently. Vectors are compared position by position, relative to the longest vector of the image's feature
map; the bound is `ARITHMETIC` plus the rounding to the stored dtype and to those before conversions. CAMs of
a classifier that was fitted to the store are those of the maps as rounded then.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from extract.checkpoints.phase1 import load_phase1
from extract.checkpoints.restore import Restored, restore
from extract.config import SampleConfig
from extract.device import Compute, make_deterministic, resolve_device, use_device
from extract.dump import row_images, row_names, store_splits
from extract.images.image_set import ImageSet
from extract.images.views import MOST_VIEWS
from extract.inference.passes import feature_maps
from extract.inner_layers.captured import CapturedLayers
from extract.networks.parts import pool
from extract.proof.distances import cam_distance, map_distance, roundings, stored_maps
from extract.sources.presence import check_phase1_exists
from store.errors import StoreError
from store.names import shown
from store.reader import FeatureStore
from store.schema import maps_name

# Largest distance of vectors, relative to the longest of the image. Measured in ResNet-20 and -32, most of it
# with random weights: 3e-6 between batches of 1 and 64 in fp32, 5e-3 between fp32 and TF32 (cuDNN's default
# for convolutions; imitated on a CPU), 5e-2 between fp32 and bf16, 0 between two batches in
# bf16. Maps of two images of one class were 0.17 and more apart in a ResNet-20 trained on digits.
ARITHMETIC = {"fp32": 2.0**-13, "tf32": 2.0**-6, "bf16": 2.0**-3}


@dataclass(frozen=True)
class Difference:
    """A row that differs from what its image gives."""

    split: str
    row: int
    image: str
    view: int
    what: str

    def __str__(self) -> str:
        return f"{self.split}: row {self.row}, {shown(self.image)}{_in_view(self.view)}: {self.what}"


def _in_view(view: int) -> str:
    return f", view {view}" if view else ""


@dataclass(frozen=True)
class Sample:
    """What to compare.

    Attributes:
        store: the store.
        restored: network (on the device) and images of its checkpoint.
        splits: these images in the store's row order, with the store's number of views.
        compute: as in the extraction, except for the device.
        arithmetic: a value of ARITHMETIC.
        rows: row numbers of each split, ascending.
    """

    store: FeatureStore
    restored: Restored
    splits: dict[str, ImageSet]
    compute: Compute
    arithmetic: float
    rows: dict[str, np.ndarray]

    def difference(self, split: str, row: int, what: str) -> Difference:
        """A difference in the row of an image, named by its file relative to the root, or by its number."""
        images = self.splits[split]
        i, view = divmod(row, images.n_views)
        name = f"image {images.sample_index[i]}" if images.name is None else images.name[i].decode()
        return Difference(split, row, name, view, what)


def draw_sample(store: FeatureStore, config: SampleConfig, progress: Progress) -> Sample:
    """Restore the store's network and images, and choose rows at random.

    Raises:
        UserError: the checkpoint is not the store's, the images are not the checkpoint's, or the store does
            not say how it was made.
    """
    ckpt = Path(config.ckpt)
    check_phase1_exists(ckpt, store.path)
    load_phase1(store, [ckpt])
    try:
        made = store.provenance["config"]
        precision, batch_size = str(made["precision"]), int(made["batch_size"])
        n_views = int(made.get("views", 1))  # older stores have one view, and do not record it
        if not 1 <= n_views <= MOST_VIEWS:
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{store.path}: provenance does not say precision, batch size and views; extract again"
        ) from error
    device = use_device(resolve_device(config.device))
    compute = Compute(device, precision, batch_size, config.workers)
    make_deterministic()
    restored = restore(ckpt, config.root, progress, arch=config.arch)
    restored.network.to(compute.device, memory_format=compute.memory_format)
    generator = np.random.default_rng(config.seed)
    rows = {}
    for split in store.splits:
        n_rows = store.arrays[f"{split}/label"].shape[0]
        rows[split] = np.sort(generator.choice(n_rows, min(config.sample, n_rows), replace=False))
    if precision == "fp32" and (store.provenance.get("device"), compute.device.type) != ("cpu", "cpu"):
        precision = "tf32"
    return Sample(store, restored, store_splits(restored, n_views), compute, ARITHMETIC[precision], rows)


def compare(sample: Sample, progress: Progress) -> Iterator[Difference]:
    """Every difference found between stored rows and their images.

    Raises:
        UserError: an image that cannot be read.
        StoreError: rows that cannot be read.
    """
    for split, rows in sample.rows.items():
        images = sample.splits[split]
        other = _other_image(sample, split, images)
        if other is not None:  # rows and images cannot be paired
            yield other
            continue
        task = progress.add_task(f"comparing {split}", total=len(rows), status="")
        done = 0
        chosen = _views_of(images, rows)
        for maps, pooled in _computed(sample, split, chosen):
            for i in range(len(pooled)):
                row = int(rows[done + i])
                of_image = {layer: of_layer[i] for layer, of_layer in maps.items()}
                if what := _unlike(sample, split, row, of_image, pooled[i]):
                    yield sample.difference(split, row, what)
            done += len(pooled)
            progress.advance(task, len(pooled))


def _computed(
    sample: Sample, split: str, images: ImageSet
) -> Iterator[tuple[dict[str | None, np.ndarray], np.ndarray]]:
    """Maps (B, H, W, C) of all stored layers (of the last under None), and pooled features, of each batch."""
    network, transform = sample.restored.network, sample.restored.transform
    layers = sample.store.layers if split == "train" else ()
    captured = CapturedLayers(network, dict.fromkeys(layers, torch.float32))
    watched = captured if layers else None
    for maps in feature_maps(network, images, transform, sample.compute, watched):
        kept = captured.take(len(maps))
        found = {layer: kept[maps_name(layer)].cpu().numpy() for layer in layers}
        yield found | {None: maps.permute(0, 2, 3, 1).float().cpu().numpy()}, pool(maps).cpu().numpy()


def _views_of(images: ImageSet, rows: np.ndarray) -> ImageSet:
    """The images of some rows, each with only the row's view."""
    chosen = images.take(rows // images.n_views)
    if chosen.seeds is None:
        return chosen
    return replace(chosen, seeds=chosen.seeds[np.arange(len(rows)), rows % images.n_views][:, None])


def _other_image(sample: Sample, split: str, images: ImageSet) -> Difference | None:
    """The first row with another image, class or view than expected."""
    names = row_names(images)
    expected = np.stack(list(names.values()), axis=1)
    found = np.stack([sample.store.arrays[f"{split}/{name}"].read().astype(np.int64) for name in names], 1)
    n = min(len(found), len(expected))
    unlike = np.flatnonzero((found[:n] != expected[:n]).any(axis=1))
    if not len(unlike) and len(found) == len(expected):
        return _other_content(sample, split, images)
    row = int(unlike[0]) if len(unlike) else n
    if row == len(found):
        return sample.difference(split, row, "has no row")
    what = f"expected {_numbered(*expected[row].tolist())}" if row < n else "one row too many"
    label, index, view = found[row].tolist()
    return Difference(split, row, f"image {index} of class {label}", view, what)


def _other_content(sample: Sample, split: str, images: ImageSet) -> Difference | None:
    """The first row whose image has another name or digest than in the checkpoint, if both record it."""
    for name, expected in row_images(images).items():
        array = sample.store.arrays.get(f"{split}/{name}")
        if array is None:
            continue
        found = array.read()
        unlike = [0] if found.shape != expected.shape else np.flatnonzero((found != expected).any(axis=1))
        if len(unlike):
            return sample.difference(split, int(unlike[0]), f"another {name} in the store")
    return None


def _numbered(label: int, index: int, view: int) -> str:
    return f"image {index} of class {label}{_in_view(view)}"


def _unlike(
    sample: Sample, split: str, row: int, of_layers: dict[str | None, np.ndarray], pooled: np.ndarray
) -> str:
    """What differs in a row from what its image gives; empty if nothing.

    Args:
        sample: what is compared.
        split: of the row.
        row: its number.
        of_layers: maps (H, W, C) of all stored layers; of the last one under None.
        pooled: (C,).

    Means over L positions are allowed 2/√L of the bound for vectors, because errors that are independent in
    each position average out. Errors from rounded weights do so less: 2.4/√L was measured between fp32 and
    bf16, for which ARITHMETIC leaves room.
    """
    store, arithmetic, maps = sample.store, sample.arithmetic, of_layers[None]
    longest = float(np.linalg.norm(maps, axis=-1).max())
    lengths = {"pooled": longest}
    stored = store.arrays[f"{split}/pooled"].read(row, row + 1)[0]
    at_most = arithmetic * longest * min(1, 2 / np.sqrt(maps[..., 0].size))
    off = {"pooled": (np.linalg.norm(stored - pooled), at_most)}
    if split == "train":
        for layer, of_layer in of_layers.items():
            name = maps_name(layer)
            lengths[name] = float(np.linalg.norm(of_layer, axis=-1).max())
            off[name] = map_distance(store.maps(layer), store, row, of_layer, arithmetic * lengths[name])
        off["cam"] = cam_distance(store, row, maps, arithmetic * longest)
        if store.provenance.get("classifier") and off["cam"][0] > off["cam"][1]:
            stored = stored_maps(store.maps(), row)  # of a fitted classifier: that of rounded maps
            since = roundings(store.maps(), store, row, stored, fitted=True)
            off["cam"] = cam_distance(store, row, stored, arithmetic * longest, since)
    wrong = [name for name, (distance, most) in off.items() if not distance <= most]  # NaN counts as wrong
    if not wrong:
        return ""
    distance, most = off[wrong[0]]
    relative = lengths.get(wrong[0]) or 1
    numbers = f"{wrong[0]} is off by {distance / relative:.2g}, allowed {most / relative:.2g}"
    return f"{', '.join(wrong)}: not what this image gives ({numbers})"
