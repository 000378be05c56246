"""Stores whose FC layer is known only once their rows are there, as by `extract --classifier fit`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from made_store import BATCH, CLASSES, made_plan, made_rows

from store.arrays.dtypes import decode
from store.drafts.lifecycle import is_finished
from store.schema import SCALE, SCALED
from store.spec import StoreSpec
from store.storage.s3 import Bucket
from store.writer import StoreWriter, write_store

DIGEST = "5" * 64  # of a checkpoint that follows from the rows
SMALL = {split: {"N": n, "H": 2, "W": 2, "C": 6} for split, n in (("train", 40), ("test", 17))}


def late_plan(dtype: str = "float16") -> StoreSpec:
    """A spec whose provenance has room for what is not known yet."""
    plan = made_plan(SMALL, dtype)
    pending = plan.provenance | {"checkpoint": {"sha256": "0" * 64}, "reserved": " " * 300}
    return replace(plan, provenance=pending)


def late_rows(dtype: str = "float16") -> dict[str, np.ndarray]:
    """The rows of a store of small maps, each in the dtype that a writer takes."""
    rows = made_rows(SMALL)
    if dtype == "bfloat16":
        import ml_dtypes

        rows["train/feature_map"] = rows["train/feature_map"].astype(ml_dtypes.bfloat16)
    return rows


def fill_rows(writer: StoreWriter, rows: dict[str, np.ndarray]) -> None:
    """Write what does not need the FC layer."""
    streamed = ("pooled", "feature_map", "cam")
    known = {p: value for p, value in rows.items() if p.split("/")[1] not in streamed}
    writer.write_known({p: value for p, value in known.items() if not p.startswith("classifier/")})
    for split in SMALL:
        names = [name for name in ("pooled", "feature_map") if f"{split}/{name}" in rows]
        for begin, end in writer.missing(split):
            for start in range(begin, end, BATCH):
                stop = min(start + BATCH, end)
                writer.write(split, start, {name: rows[f"{split}/{name}"][start:stop] for name in names})


def finish_late(writer: StoreWriter) -> None:
    """Derive FC layer, provenance and CAMs from what is written, write them, and finish."""
    if not writer.has_classifier:
        label, pooled = (np.concatenate([*writer.read_back(f"train/{n}")]) for n in ("label", "pooled"))
        means = np.stack([pooled[label == k].mean(0) for k in range(len(CLASSES))])
        made = {name: value for name, value in writer.provenance.items() if name != "reserved"}
        made |= {"checkpoint": {"sha256": DIGEST}, "fit": [float(pooled.sum()), "é"]}
        bias = -(means**2).sum(1) / 2
        writer.write_classifier({"classifier/weight": means, "classifier/bias": bias}, made)
    missing = writer.missing_cams()
    if missing:
        weight = writer.read_block("classifier/weight", 0)
        label = writer.read_block("train/label", 0)
        for block, cam in enumerate(late_cams(writer, weight, label)):
            if block in missing:
                writer.write_cams(block, cam)
    writer.finish()


def late_cams(writer: StoreWriter, weight: np.ndarray, label: np.ndarray):
    """CAMs of the stored maps, block by block."""
    start = 0
    for block, codes in enumerate(writer.read_back("train/feature_map")):
        scaled = writer.map_dtype in SCALED
        scale = writer.read_block(f"train/{SCALE}", block) if scaled else None
        maps = decode(codes, writer.map_dtype, scale, np.dtype(np.float32))
        cam = np.einsum("nhwc,nc->nhw", maps, weight[label[start : start + len(maps)]])
        low, high = cam.min((1, 2), keepdims=True), cam.max((1, 2), keepdims=True)
        yield (cam - low) / (high - low)
        start += len(maps)


def make_late(
    path: Path | Bucket, resume: bool = False, overwrite: bool = False, dtype: str = "float16"
) -> None:
    """Write a whole store in the late way."""
    plan = late_plan(dtype)
    if resume and is_finished(path, plan, overwrite):
        return
    with write_store(path, plan, resume, overwrite) as writer:
        fill_rows(writer, late_rows(dtype))
        finish_late(writer)
