"""How far a stored row is from what its image gives, beside what rounding allows."""

import numpy as np

from store.arrays.dtypes import RELATIVE
from store.arrays.maps import StoredMaps
from store.reader import FeatureStore
from store.schema import LAYERS
from store.verify import CAM_ROUNDING, rounding_errors


def map_distance(
    of_layer: StoredMaps, store: FeatureStore, row: int, maps: np.ndarray, error: float
) -> tuple[float, float]:
    """The worst distance of a stored vector relative to its tolerance, and that tolerance."""
    stored = stored_maps(of_layer, row)
    distance = np.linalg.norm(stored - maps, axis=-1)
    allowed = error + np.linalg.norm(roundings(of_layer, store, row, stored), axis=-1)
    worst = np.unravel_index(np.argmax(np.nan_to_num(distance - allowed, nan=np.inf)), distance.shape)
    return float(distance[worst]), float(allowed[worst])


def stored_maps(of_layer: StoredMaps, row: int) -> np.ndarray:
    """The maps (H, W, C) of a row, float32."""
    return of_layer.decoded(of_layer.array.read(row, row + 1), row, np.dtype(np.float32))[0]


def roundings(
    of_layer: StoredMaps, store: FeatureStore, row: int, maps: np.ndarray, fitted: bool = False
) -> np.ndarray:
    """Bounds (H, W, C) on the errors of stored maps from rounding to every dtype that they have had.

    With `fitted`, only to those since the classifier was fitted, on maps in the first.
    """
    steps = [step["from"] for step in store.provenance.get("converted") or []]
    forms = [step[LAYERS][of_layer.layer] for step in steps] if of_layer.layer else steps
    first, *later = (*(form["dtype"] for form in forms), of_layer.dtype)
    dtypes = {*later} - {first} if fitted else {first, *later}
    error = sum((np.abs(maps) * RELATIVE[dtype] for dtype in dtypes - {of_layer.dtype}), np.zeros_like(maps))
    return error + rounding_errors(of_layer, maps[None], row)[0] if of_layer.dtype in dtypes else error


def cam_distance(
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
