"""Golden stores, written once and kept: what the program reads from them must not change."""

import json
import warnings
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 finds its filters by it
import numpy as np
import pytest
import zarr
from golden import (
    CLASS_NAMES,
    DATA,
    IDENTITY,
    MADE,
    PROVENANCE,
    SCALE,
    blocks_of_a_batch,
    codes,
    rows,
    write,
)
from made_store import SECONDS, contents
from rich.progress import Progress

from store.arrays.gather import gather
from store.reader import FeatureStore
from store.verify import verify

STORES = [DATA / f"{name}{suffix}" for name in MADE for suffix in (".zarr", ".h5")]
golden = pytest.mark.parametrize("path", STORES, ids=lambda path: path.name)


def expected(path: Path) -> dict[str, np.ndarray]:
    """The content of each array of a golden store, except checksums."""
    _, _, splits = MADE[path.stem]
    values = {name: value for name, value in rows().items() if name.startswith(("classifier/", *splits))}
    values["finished"] = np.array([SECONDS])
    if path.stem == "golden_v1_int8":
        values |= {"train/feature_map": codes(), "train/feature_map_scale": np.stack([SCALE] * 3)}
    return values


@golden
def test_it_opens_and_gives_what_was_written(path):
    store = FeatureStore(path)
    for name, value in expected(path).items():
        np.testing.assert_array_equal(store.arrays[name].read(), value, strict=True)
    assert {name for name in store.arrays if not name.startswith("checksum/")} == expected(path).keys()
    assert store.class_names == CLASS_NAMES
    assert store.provenance == PROVENANCE | {"identity": IDENTITY}
    assert (store.finished, store.splits) == (SECONDS, list(MADE[path.stem][2]))
    np.testing.assert_array_equal(store.read_feature_map(), rows()["train/feature_map"], strict=True)
    some = np.array([9, 0, 5, 5])
    np.testing.assert_array_equal(
        gather(store.arrays["train/feature_map"], some), expected(path)["train/feature_map"][some]
    )


@golden
def test_verify_finds_it_sound(path):
    assert list(verify(FeatureStore(path), Progress(disable=True))) == []


@golden
def test_the_containers_own_library_reads_golden_stores(path):
    root = zarr.open_group(path, mode="r") if path.suffix == ".zarr" else h5py.File(path, "r")
    for name, value in expected(path).items():
        np.testing.assert_array_equal(root[name][:], value, strict=True)
    names = root.attrs["class_names"]
    assert (names if path.suffix == ".zarr" else json.loads(names)) == CLASS_NAMES
    assert (root.attrs["schema_version"], bool(root.attrs["complete"])) == (1, True)


def trimmed(files: dict[str, bytes]) -> dict[str, bytes]:
    """The metadata without a final newline that an editor may add."""
    return {k: v.removesuffix(b"\n") if k.endswith("zarr.json") else v for k, v in files.items()}


@pytest.mark.parametrize(
    "path", [path for path in STORES if path.suffix == ".zarr"], ids=lambda path: path.name
)
def test_any_zarr_writes_the_same_files(path, tmp_path):
    """Metadata and raw shards byte for byte, with any release; packed rows after decoding."""
    dtype, codec, splits = MADE[path.stem]
    with blocks_of_a_batch(), warnings.catch_warnings(action="error"):
        write(tmp_path / path.name, dtype, codec, splits)
        kept, written = FeatureStore(path), FeatureStore(tmp_path / path.name)
    old, new = (trimmed(contents(store.path)) for store in (kept, written))
    assert old.keys() == new.keys()
    packed = {name for name in old if codec != "none" and name.startswith("train/feature_map/c/")}
    assert len(packed) == (0 if codec == "none" else 3)
    assert [name for name in old if old[name] != new[name] and name not in packed] == []
    maps = [store.arrays["train/feature_map"].read() for store in (kept, written)]
    np.testing.assert_array_equal(*maps, strict=True)


def test_formulas_by_hand():
    """Row 4 is of class 1, whose weights are −1, 1, 0, 2; all that follows was computed by hand."""
    made = rows()
    assert made["train/label"].tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    first = made["train/feature_map"][4, 0, 0]
    assert first.tolist() == [127 / 8, (116 + 41 - 100) / 16, (116 + 82 - 100) / 32, 127 / 64]
    assert made["test/pooled"][2].tolist() == [1.5, 3.0, 0.0, 6.0]
    raw = [-first[0] + first[1] + 2 * first[3]]
    assert raw == [-15.875 + 3.5625 + 3.96875]
