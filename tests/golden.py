"""Golden stores: their content as formulas, and how they were written.

Usage: python tests/golden.py   writes what is missing in tests/data, and leaves the rest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from made_store import stopped_clock

from store.layout import store_layout
from store.spec import StoreSpec
from store.writer import write_store

DATA = Path(__file__).parent / "data"
MADE = {  # dtype and codec of the maps, and splits
    "golden_v1": ("float16", "none", ("train", "val", "test")),
    "golden_v1_int8": ("int8", "zstd", ("train", "test")),
    "golden_v1_lz4": ("float16", "lz4", ("train", "test")),
}
CLASS_NAMES = ["ape", "bête", "cat with spaces"]
PROVENANCE = {"checkpoint": {"sha256": "5e"}, "note": "made of formulas"}
IDENTITY = {"precision": "fp32"}
BATCH = 4  # and block, so that train has three
N_ROWS = {"train": 10, "val": 3, "test": 5}
SIZES = {split: {"N": n, "H": 2, "W": 3, "C": 4} for split, n in N_ROWS.items()}
SCALE = 0.5 ** np.arange(3, 7, dtype=np.float32)  # of each channel


def codes() -> np.ndarray:
    """(N, H, W, C) int8: every channel has its largest code, 127, in every row."""
    n, h, w, c = np.meshgrid(*(np.arange(size) for size in (10, 2, 3, 4)), indexing="ij")
    return np.where((h == 0) & (w == c % 3), 127, (29 * n + 31 * h + 37 * w + 41 * c) % 100).astype(np.int8)


def rows() -> dict[str, np.ndarray]:
    """Every array by its path; maps are powers of two times seven bits, which float16 and int8 both hold."""
    weight = np.array([[1, -2, 3, -4], [-1, 1, 0, 2], [2, 2, -5, 1]], np.float32)
    made = {"classifier/weight": weight, "classifier/bias": np.array([0.25, -0.5, 0], np.float32)}
    for split, n in N_ROWS.items():
        row = np.arange(n)
        made[f"{split}/label"] = (row * 3 // n).astype(np.int32)
        made[f"{split}/sample_index"] = 7 + 2 * row
        made[f"{split}/view"] = np.zeros(n, np.int16)
        made[f"{split}/pooled"] = np.outer(row + 1, [0.5, 1, 0, 2]).astype(np.float32)
    maps = codes() * SCALE
    cam = np.einsum("nhwc,nc->nhw", maps.astype(float), weight[made["train/label"]])
    low, high = cam.min((1, 2), keepdims=True), cam.max((1, 2), keepdims=True)
    return made | {
        "train/pooled": maps.astype(float).mean((1, 2)).astype(np.float32),
        "train/feature_map": maps.astype(np.float16),
        "train/cam": ((cam - low) / (high - low)).astype(np.float16),
    }


def write(path: Path, dtype: str, codec: str, splits: tuple[str, ...]) -> None:
    """Write one golden store."""
    made = {name: value for name, value in rows().items() if name.startswith(("classifier/", *splits))}
    sizes = {split: SIZES[split] for split in splits}
    plan = StoreSpec(
        store_layout(sizes, len(CLASS_NAMES), dtype, BATCH, codec), dtype, CLASS_NAMES, PROVENANCE, IDENTITY
    )
    streamed = dict.fromkeys(splits, ("pooled",)) | {"train": ("pooled", "feature_map", "cam")}
    known = made.keys() - {f"{split}/{name}" for split, names in streamed.items() for name in names}
    with write_store(path, plan, resume=False, overwrite=False) as writer:
        writer.write_known({name: made[name] for name in known})
        for split, names in streamed.items():
            for start, stop in writer.missing(split):
                writer.write(split, start, {name: made[f"{split}/{name}"][start:stop] for name in names})
        writer.finish()


@contextmanager
def blocks_of_a_batch() -> Iterator[None]:
    """Use the golden stores' blocks, and their time."""
    with stopped_clock(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("store.layout.BLOCK_BYTES", 1)
        yield


if __name__ == "__main__":
    with blocks_of_a_batch():
        for name, made_as in MADE.items():
            for suffix in (".zarr", ".h5"):
                if not (DATA / f"{name}{suffix}").exists():
                    write(DATA / f"{name}{suffix}", *made_as)
