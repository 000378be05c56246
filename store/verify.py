"""Verifying a store: checksums of every byte that a reader uses, and invariants between its arrays.

The invariants are computed with numpy from the stored bytes alone, independently of the code that wrote them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from rich.progress import Progress

from store.arrays.checksum import crc32c, metadata_checksum
from store.arrays.dtypes import OF_SCALE, RELATIVE
from store.arrays.image_names import DIGEST, GROUP, NAME, names_from_bytes
from store.arrays.maps import StoredMaps
from store.arrays.raw import StoredArray
from store.errors import StoreError
from store.layout import ArrayLayout
from store.reader import FeatureStore
from store.schema import CHECKSUM

CAM_ROUNDING = 2.0**-11  # relative error of rounding to float16
SUMMING = 1e-5  # relative error of a float32 sum of magnitudes, in any order of summation


@dataclass(frozen=True)
class Fault:
    """A fault, and the array that has it."""

    array: str
    what: str

    def __str__(self) -> str:
        return f"{self.array}: {self.what}"


def verify(store: FeatureStore, progress: Progress) -> Iterator[Fault]:
    """Read the whole store once, block by block, and yield every fault found.

    Memory is bounded by one block of every array of a split, plus its labels, indices and views.
    """
    faults = list(_metadata_faults(store))
    yield from faults
    if faults:  # wrong attributes or shapes leave nothing to check by
        return
    names = [name for name in store.arrays if not name.startswith(f"{CHECKSUM}/")]
    total = sum(store.arrays[name].n_bytes for name in names)
    task = progress.add_task("verifying", total=total, status="")
    sound = set()
    for name in names:
        faults = list(_checksum_faults(store, name))
        yield from faults
        if not faults:
            sound.add(name)
        progress.advance(task, store.arrays[name].n_bytes)
    for split in store.splits:
        needed = {name for name in names if name.startswith((f"{split}/", "classifier/"))}
        if needed <= sound:  # else further faults would only follow from these
            yield from _split_faults(store, split)


def _metadata_faults(store: FeatureStore) -> Iterator[Fault]:
    if f"{CHECKSUM}/metadata" not in store.arrays:
        yield Fault("metadata", "the store has no checksums")
        return
    layouts = {name: ArrayLayout(array.shape, array.dtype.name, 1, 1) for name, array in store.arrays.items()}
    try:
        recorded = int(store.arrays[f"{CHECKSUM}/metadata"].read()[0])
    except StoreError as error:
        yield Fault("metadata", str(error))
        return
    if metadata_checksum(store.attributes, layouts) != recorded:
        yield Fault("metadata", "attributes, shapes or dtypes do not match their checksum")


def _checksum_faults(store: FeatureStore, name: str) -> Iterator[Fault]:
    array, recorded = store.arrays[name], store.arrays.get(f"{CHECKSUM}/{name}")
    if recorded is None:
        yield Fault(name, "has no checksums")
        return
    try:
        expected = recorded.read()
    except StoreError as error:
        yield Fault(name, f"its checksums cannot be read: {error}")
        return
    blocks = list(_blocks(store, name))
    if len(blocks) != len(expected):
        yield Fault(name, f"has {len(blocks)} blocks but {len(expected)} checksums")
        return
    for (start, stop), checksum in zip(blocks, expected.tolist(), strict=True):
        try:
            if crc32c(array.read(start, stop)) != checksum:
                yield Fault(name, f"rows {start} to {stop - 1} do not match their checksum")
        except StoreError as error:
            yield Fault(name, f"rows {start} to {stop - 1}: {error}")


def _blocks(store: FeatureStore, name: str) -> Iterator[tuple[int, int]]:
    """First row of each block, and the row after its last one."""
    array = store.arrays[name]
    rows = store.block_rows(name)
    for start in range(0, array.shape[0], rows):
        yield start, min(start + rows, array.shape[0])


def _split_faults(store: FeatureStore, split: str) -> Iterator[Fault]:
    arrays = {name.removeprefix(f"{split}/"): a for name, a in store.arrays.items()}
    label, index, view = (arrays[name].read() for name in ("label", "sample_index", "view"))
    order = np.lexsort((view, index, label))
    if (order != np.arange(len(label))).any():
        yield Fault(f"{split}/label", "rows are not sorted by (label, sample_index, view)")
    if len(np.unique(np.stack([index, view]), axis=1).T) != len(label):
        yield Fault(f"{split}/sample_index", "an image occurs twice in one view")
    elif not _in_even_views(index, view, split):
        of_split = "every view" if split == "train" else "view 0 alone"
        yield Fault(f"{split}/view", f"not every image has {of_split}")
    yield from _image_faults(arrays, split, index)
    if not (label.min() >= 0 and label.max() < len(store.class_names)):
        yield Fault(f"{split}/label", f"is not within the {len(store.class_names)} classes")
        return
    for start, stop in _blocks(store, f"{split}/pooled"):
        rows = f"rows {start} to {stop - 1}"
        pooled = arrays["pooled"].read(start, stop)
        if not np.isfinite(pooled).all():
            yield Fault(f"{split}/pooled", f"{rows} hold NaN or infinite features")
        elif split == "train":
            yield from _map_faults(store, arrays, label[start:stop], pooled, (start, stop))


def _image_faults(arrays: dict[str, StoredArray], split: str, index: np.ndarray) -> Iterator[Fault]:
    """Faults in names, digests and groups of images, in stores that have them."""
    if NAME in arrays:
        names = names_from_bytes(arrays[NAME].read())
        try:
            b"\n".join(names.tolist()).decode()
        except UnicodeDecodeError:
            yield Fault(f"{split}/{NAME}", "holds a name that is not UTF-8")
        pairs = np.unique(np.stack([np.unique(names, return_inverse=True)[1], index]), axis=1).shape[1]
        if not (names != b"").all() or not len(np.unique(names)) == len(np.unique(index)) == pairs:
            yield Fault(f"{split}/{NAME}", "does not have one name for each image")
    for name in (name for name in (DIGEST, GROUP) if name in arrays):
        values = arrays[name].read()
        order = np.argsort(index, kind="stable")
        alike = index[order][1:] == index[order][:-1]
        if (values[order][1:] != values[order][:-1])[alike].any():
            yield Fault(f"{split}/{name}", "differs between views of one image")


def _in_even_views(index: np.ndarray, view: np.ndarray, split: str) -> bool:
    """Whether every image has the same views, just one outside of train; rows are sorted."""
    n_views = max(1, int(view.max()) + 1) if split == "train" else 1
    if len(view) % n_views:
        return False
    index, view = index.reshape(-1, n_views), view.reshape(-1, n_views)
    return bool((index == index[:, :1]).all() and (view == np.arange(n_views)).all())


def _map_faults(
    store: FeatureStore,
    arrays: dict[str, StoredArray],
    label: np.ndarray,
    pooled: np.ndarray,
    block: tuple[int, int],
) -> Iterator[Fault]:
    rows = f"rows {block[0]} to {block[1] - 1}"
    maps = store.decoded(arrays["feature_map"].read(*block), block[0], np.dtype(np.float32))
    cam = arrays["cam"].read(*block).astype(np.float32)
    faults = [*_not_finite({"train/feature_map": maps, "train/cam": cam}, rows)]
    yield from faults
    if faults:
        return
    for layer in map(store.maps, store.layers):
        of_layer = layer.decoded(layer.array.read(*block), block[0], np.dtype(np.float32))
        yield from _not_finite({layer.path: of_layer}, rows)
    error = rounding_errors(store.maps(), maps, block[0])
    if (np.abs(maps.mean((1, 2)) - pooled) > 2 * error.mean((1, 2)) + 1e-6).any():
        yield Fault("train/pooled", f"{rows} are not the means of their feature maps")
    low, high = cam.min((1, 2)), cam.max((1, 2))
    if not (((low == 0) & (high == 1)) | ((low == 0) & (high == 0))).all():
        yield Fault("train/cam", f"{rows} do not span 0 to 1")
    expected, tolerance = _cams(maps, store.classifier[0][label], error)
    constant = high == 0
    wrong = np.abs(cam - expected) > tolerance
    if wrong[~constant].any() or (tolerance[constant] < 1).any():
        yield Fault("train/cam", f"{rows} are not the class activation maps of their feature maps")


def _not_finite(values: dict[str, np.ndarray], rows: str) -> Iterator[Fault]:
    for name, of_rows in values.items():
        if not np.isfinite(of_rows).all():
            yield Fault(name, f"{rows} hold NaN or infinite values")


def rounding_errors(stored: StoredMaps, maps: np.ndarray, start: int) -> np.ndarray:
    """Bound on the error of each value (B, H, W, C), from rounding to its dtype and float32 sums."""
    error = np.abs(maps) * (RELATIVE[stored.dtype] + SUMMING)
    if stored.is_lossy:
        rows = np.arange(start, start + len(maps)) // stored.block_rows
        error += OF_SCALE[stored.dtype] * stored.scale[rows][:, None, None, :]
    return error


def _cams(maps: np.ndarray, weight: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """CAMs (paper, eq. 1) of (B, H, W, C) maps with (B, C) weights, and a bound on their error."""
    raw = np.einsum("bhwc,bc->bhw", maps, weight)
    error = 2 * np.einsum("bhwc,bc->bhw", error, np.abs(weight)).max((1, 2))
    low, span = raw.min((1, 2)), np.ptp(raw, (1, 2))
    safe = np.where(span > 0, span, 1)
    expected = (raw - low[:, None, None]) / safe[:, None, None]
    tolerance = np.where(span > 0, 3 * error / safe, 1) + 2 * CAM_ROUNDING
    return expected, np.broadcast_to(tolerance[:, None, None], raw.shape)
