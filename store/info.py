"""What a store holds, in words and numbers."""

from typing import Any

import numpy as np

from store.container import file_sizes
from store.provenance import as_utc
from store.reader import FeatureStore


def describe(store: FeatureStore) -> dict[str, Any]:
    """Arrays with shape, dtype and size, files, images of each class in each split, what made it and when."""
    arrays = {
        name: {"shape": list(array.shape), "dtype": array.dtype.name, "bytes": array.n_bytes}
        for name, array in store.arrays.items()
    }
    counts = {
        split: np.bincount(store.read(split).label, minlength=len(store.class_names)).tolist()
        for split in store.splits
    }
    sizes = file_sizes(store.path)
    return {
        "path": str(store.path),
        "schema_version": store.attributes["schema_version"],
        "arrays": arrays,
        "files": len(sizes),
        "bytes": sum(sizes),
        "classes": [
            {"class_name": name} | {split: counts[split][k] for split in counts}
            for k, name in enumerate(store.class_names)
        ],
        "provenance": store.provenance,
        "finished": None if store.finished is None else as_utc(store.finished),
    }
