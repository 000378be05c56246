"""A summary of what a store holds."""

from typing import Any

from store.containers.detect import file_sizes
from store.provenance import as_utc
from store.reader import FeatureStore


def describe(store: FeatureStore) -> dict[str, Any]:
    """What a store holds, how large it is, and what made it and when.

    Returns:
        Among others `arrays` with shape, dtype and size, `classes` with the number of images of each class in
        each split (several views count once), `views`, the number of views of each image, by split, and
        `layers`, the dtypes of the maps of earlier layers by name.
    """
    arrays = {
        name: {"shape": list(array.shape), "dtype": array.dtype.name, "bytes": array.n_bytes}
        for name, array in store.arrays.items()
    }
    splits = {split: store.read(split) for split in store.splits}
    counts = {split: of_split.class_counts(len(store.class_names)) for split, of_split in splits.items()}
    sizes = file_sizes(store.path)
    return {
        "path": str(store.path),
        "schema_version": store.attributes["schema_version"],
        "arrays": arrays,
        "files": len(sizes),
        "bytes": sum(sizes),
        "classes": [
            {"class_name": name} | {split: int(of_split[k]) for split, of_split in counts.items()}
            for k, name in enumerate(store.class_names)
        ],
        "views": {split: of_split.n_views for split, of_split in splits.items()},
        "layers": store.layer_dtypes,
        "provenance": store.provenance,
        "finished": None if store.finished is None else as_utc(store.finished),
    }
