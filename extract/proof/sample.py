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
from rich.progress import Progress

from extract.checkpoints.phase1 import load_phase1
from extract.checkpoints.restore import Restored, restore
from extract.config import SampleConfig
from extract.device import Compute, make_deterministic, resolve_device, use_device
from extract.dump import row_images, row_names, store_splits
from extract.images.image_set import ImageSet
from extract.images.views import MOST_VIEWS
from extract.inference import feature_maps
from extract.networks.parts import pool
from extract.sources.presence import check_phase1_exists
from store.arrays.dtypes import RELATIVE
from store.errors import StoreError
from store.names import shown
from store.reader import FeatureStore
from store.verify import CAM_ROUNDING, rounding_errors

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
        for maps in feature_maps(sample.restored.network, chosen, sample.restored.transform, sample.compute):
            pooled = pool(maps).cpu().numpy()
            maps = maps.permute(0, 2, 3, 1).float().cpu().numpy()  # (B, H, W, C)
            for i in range(len(maps)):
                row = int(rows[done + i])
                if what := _unlike(sample, split, row, maps[i], pooled[i]):
                    yield sample.difference(split, row, what)
            done += len(maps)
            progress.advance(task, len(maps))


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


def _unlike(sample: Sample, split: str, row: int, maps: np.ndarray, pooled: np.ndarray) -> str:
    """What differs in a row from what its image gives: maps (H, W, C), pooled (C,); empty if nothing.

    Means over L positions are allowed 2/√L of the bound for vectors, because errors that are independent in
    each position average out. Errors from rounded weights do so less: 2.4/√L was measured between fp32 and
    bf16, for which ARITHMETIC leaves room.
    """
    store, arithmetic = sample.store, sample.arithmetic
    longest = float(np.linalg.norm(maps, axis=-1).max())
    stored = store.arrays[f"{split}/pooled"].read(row, row + 1)[0]
    at_most = arithmetic * longest * min(1, 2 / np.sqrt(maps[..., 0].size))
    off = {"pooled": (np.linalg.norm(stored - pooled), at_most)}
    if split == "train":
        off["feature_map"] = _map_distance(store, row, maps, arithmetic * longest)
        off["cam"] = _cam_distance(store, row, maps, arithmetic * longest)
        if store.provenance.get("classifier") and off["cam"][0] > off["cam"][1]:
            stored = _stored_maps(store, row)  # a fitted classifier's CAM is that of maps that were rounded
            since = _roundings(store, row, stored, fitted=True)
            off["cam"] = _cam_distance(store, row, stored, arithmetic * longest, since)
    wrong = [name for name, (distance, most) in off.items() if not distance <= most]  # NaN counts as wrong
    if not wrong:
        return ""
    distance, most = off[wrong[0]]
    relative = longest if longest and wrong[0] != "cam" else 1
    numbers = f"{wrong[0]} is off by {distance / relative:.2g}, allowed {most / relative:.2g}"
    return f"{', '.join(wrong)}: not what this image gives ({numbers})"


def _map_distance(store: FeatureStore, row: int, maps: np.ndarray, error: float) -> tuple[float, float]:
    """The worst distance of a stored vector relative to its tolerance, and that tolerance."""
    stored = _stored_maps(store, row)
    distance = np.linalg.norm(stored - maps, axis=-1)
    allowed = error + np.linalg.norm(_roundings(store, row, stored), axis=-1)
    worst = np.unravel_index(np.argmax(np.nan_to_num(distance - allowed, nan=np.inf)), distance.shape)
    return float(distance[worst]), float(allowed[worst])


def _stored_maps(store: FeatureStore, row: int) -> np.ndarray:
    """The feature maps (H, W, C) of a row, float32."""
    codes = store.arrays["train/feature_map"].read(row, row + 1)
    return store.decoded(codes, row, np.dtype(np.float32))[0]


def _roundings(store: FeatureStore, row: int, maps: np.ndarray, fitted: bool = False) -> np.ndarray:
    """Bounds (H, W, C) on the errors of stored maps from rounding to every dtype that they have had.

    With `fitted`, only to those since the classifier was fitted, on maps in the first.
    """
    steps = store.provenance.get("converted") or []
    first, *later = (*(step["from"]["dtype"] for step in steps), store.map_dtype)
    dtypes = {*later} - {first} if fitted else {first, *later}
    error = sum((np.abs(maps) * RELATIVE[dtype] for dtype in dtypes - {store.map_dtype}), np.zeros_like(maps))
    return error + rounding_errors(store, maps[None], row)[0] if store.map_dtype in dtypes else error


def _cam_distance(
    store: FeatureStore, row: int, maps: np.ndarray, error: float, rounded: np.ndarray | None = None
) -> tuple[float, float]:
    """The same for the CAM, whose values before normalisation move by at most |weight| · error.

    If that exceeds the CAM's range, anything passes here: `verify` compares the CAM with the stored maps.

    Args:
        store: the store.
        row: number of the row.
        maps: (H, W, C) that the CAM is compared with that of.
        error: bound on the length of the error of a vector of the maps.
        rounded: (H, W, C) bounds on errors of single values besides; None for none.
    """
    label = int(store.arrays["train/label"].read(row, row + 1)[0])
    weight = store.classifier[0][label]
    raw = maps @ weight
    span = float(np.ptp(raw))
    of_values = 0.0 if rounded is None else float((rounded @ np.abs(weight)).max())
    moved = 3 * (float(np.linalg.norm(weight)) * error + of_values)  # value, minimum and maximum
    if moved >= span:
        return 0.0, 1.0
    stored = store.arrays["train/cam"].read(row, row + 1)[0].astype(np.float32)
    return float(np.abs(stored - (raw - raw.min()) / span).max()), moved / span + 2 * CAM_ROUNDING
