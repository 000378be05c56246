"""Stores of made-up rows, written without a network: small, several blocks, and fast."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from store.drafts.lifecycle import is_finished
from store.layout import ArrayLayout, store_layout
from store.spec import StoreSpec
from store.storage.s3 import Bucket
from store.writer import StoreWriter, write_store

BATCH = 8
SIZES = {
    "train": {"N": 44, "H": 3, "W": 3, "C": 6},
    "val": {"N": 9, "H": 3, "W": 3, "C": 6},
    "test": {"N": 20, "H": 3, "W": 3, "C": 6},
}
WITHOUT_VAL = {split: axes for split, axes in SIZES.items() if split != "val"}
CLASSES = ["a", "b", "c"]
CODEC = "none"  # of made stores; tests set another
SECONDS = 1_700_000_000  # what a stopped clock shows


@contextmanager
def stopped_clock() -> Iterator[None]:
    """Stop the clock of stores, so that two stores of the same rows have the same bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("store.provenance.now", lambda: SECONDS)
        yield


def made_layouts(sizes=SIZES, dtype: str = "float16", codec: str = "none") -> dict[str, ArrayLayout]:
    """The layout of a made store; `store.layout.BLOCK_BYTES` decides how many blocks there are."""
    return store_layout(sizes, len(CLASSES), dtype, BATCH, codec)


def made_plan(sizes=SIZES, dtype: str = "float16", **identity: object) -> StoreSpec:
    """The spec of a made store."""
    made = {"checkpoint": {"sha256": "0", "path": "c.pt", "relative_path": "c.pt"}, "note": "é"}
    return StoreSpec(
        made_layouts(sizes, dtype, CODEC), dtype, CLASSES, made, {"precision": "fp32"} | identity
    )


def made_rows(sizes=SIZES) -> dict[str, np.ndarray]:
    """Every array of a made store, by path; the maps' means are the pooled features, the CAMs span 0 to 1."""
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(len(CLASSES), sizes["train"]["C"])).astype(np.float32)
    rows = {"classifier/weight": weight, "classifier/bias": np.arange(len(CLASSES), dtype=np.float32)}
    for split, axes in sizes.items():
        n, h, w, c = (axes[letter] for letter in "NHWC")
        label = np.sort(generator.integers(0, len(CLASSES), n)).astype(np.int32)
        maps = generator.random((n, h, w, c), np.float32).astype(np.float16)
        rows[f"{split}/label"] = label
        rows[f"{split}/sample_index"] = np.arange(n)
        rows[f"{split}/view"] = np.zeros(n, np.int16)
        rows[f"{split}/pooled"] = maps.astype(np.float32).mean((1, 2))
        if split == "train":
            cam = np.einsum("nhwc,nc->nhw", maps.astype(np.float32), weight[label])
            low, high = cam.min((1, 2), keepdims=True), cam.max((1, 2), keepdims=True)
            rows |= {"train/feature_map": maps, "train/cam": ((cam - low) / (high - low)).astype(np.float16)}
    return rows


def fill(writer: StoreWriter, rows: dict[str, np.ndarray]) -> None:
    """Write everything that is missing, batch by batch, as an extraction does."""
    streamed = ("pooled", "feature_map", "cam")
    writer.write_known({path: value for path, value in rows.items() if path.split("/")[1] not in streamed})
    for split in sorted({path.split("/")[0] for path in rows} - {"classifier"}):
        names = [name for name in streamed if f"{split}/{name}" in rows]
        if not names:
            continue
        for begin, end in writer.missing(split):
            for start in range(begin, end, BATCH):
                stop = min(start + BATCH, end)
                writer.write(split, start, {name: rows[f"{split}/{name}"][start:stop] for name in names})


def write_made(path: Path, plan: StoreSpec, rows: dict[str, np.ndarray]) -> None:
    """Write a store of given rows."""
    with write_store(path, plan, resume=False, overwrite=False) as writer:
        fill(writer, rows)
        writer.finish()


def make_store(
    path: Path | Bucket, resume: bool = False, overwrite: bool = False, sizes=SIZES, **identity: object
) -> None:
    """Write a whole made store."""
    plan = made_plan(sizes, **identity)
    if resume and is_finished(path, plan, overwrite):
        return
    with write_store(path, plan, resume, overwrite) as writer:
        fill(writer, made_rows(sizes))
        writer.finish()


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a store, by name, for comparing stores."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.is_file()}


def committed(folder: Path) -> list[dict]:
    """The records of a draft."""
    lines = (folder / "commits.jsonl").read_text().splitlines()
    return [json.loads(line.rpartition(" ")[0]) for line in lines]


def written(path: Path, make: Callable[[Path], None]) -> dict[str, bytes]:
    """The files of a store that `make` writes beside a path, with the same suffix."""
    other = path.with_name(f"whole{path.suffix}")
    make(other)
    return contents(other)
