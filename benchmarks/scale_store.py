"""Synthetic stores of any number of rows and classes, with a matching checkpoint."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from extract.checkpoints.checkpoint import Checkpoint, file_digest, save_checkpoint
from extract.config import DatasetConfig, NetworkConfig, TrainConfig
from extract.images.transforms import Transform
from store.layout import store_layout
from store.spec import StoreSpec
from store.writer import write_store

CHANNELS, SIDE, BATCH = 2048, 2, 256
TEST_PER_CLASS = 3  # iNaturalist 2018 has three validation images a class
IMBALANCE = 500
POOL = 4096  # random maps; rows are these, each shifted towards its class


def long_tailed_counts(n_rows: int, n_classes: int) -> np.ndarray:
    """(K,) descending counts, at least two each, that sum to the number of rows."""
    share = float(IMBALANCE) ** (-np.arange(n_classes) / (n_classes - 1))
    counts = 2 + ((n_rows - 2 * n_classes) * share / share.sum()).astype(int)
    counts[0] += n_rows - counts.sum()
    return counts


def make_store(folder: Path, n_rows: int, n_classes: int) -> Path:
    """Write `folder`/checkpoint.pt and `folder`/feats.zarr; returns the store's path."""
    random = np.random.default_rng(0)
    counts = long_tailed_counts(n_rows, n_classes)
    weight = random.standard_normal((n_classes, CHANNELS), np.float32) / np.float32(CHANNELS**0.5)
    label = {
        "train": np.repeat(np.arange(n_classes), counts),
        "test": np.repeat(np.arange(n_classes), TEST_PER_CLASS),
    }
    plan = _plan(folder, label, weight, counts)
    maps = np.maximum(random.standard_normal((POOL, SIDE, SIDE, CHANNELS), np.float32), 0)
    known = {"classifier/weight": weight, "classifier/bias": np.zeros(n_classes, np.float32)}
    for split, of_split in label.items():
        known |= {f"{split}/label": of_split, f"{split}/sample_index": np.arange(len(of_split))}
        known |= {f"{split}/view": np.zeros(len(of_split))}
    with write_store(folder / "feats.zarr", plan, resume=False, overwrite=False) as writer:
        writer.write_known(known)
        for split, of_split in label.items():
            for start in range(0, len(of_split), BATCH):
                classes = of_split[start : start + BATCH]
                drawn = maps[random.integers(POOL, size=len(classes))] + 8 * weight[classes][:, None, None]
                rows = {"pooled": drawn.mean((1, 2))}
                if split == "train":
                    rows |= {"feature_map": drawn, "cam": _cams(drawn, weight[classes])}
                writer.write(split, start, rows)
        writer.finish()
    return folder / "feats.zarr"


def _cams(maps: np.ndarray, weight: np.ndarray) -> np.ndarray:
    raw = np.einsum("bhwc,bc->bhw", maps, weight)
    low, high = raw.min((1, 2), keepdims=True), raw.max((1, 2), keepdims=True)
    return (raw - low) / (high - low)


def _plan(folder: Path, label: dict[str, np.ndarray], weight: np.ndarray, counts: np.ndarray) -> StoreSpec:
    config = asdict(TrainConfig().resolved())
    network, dataset = asdict(NetworkConfig()), asdict(DatasetConfig("digits"))
    names = [f"class {k}" for k in range(len(weight))]
    checkpoint = Checkpoint(
        network=network,
        dataset=dataset,
        transform=asdict(Transform(32)),
        class_names=names,
        class_counts=counts.tolist(),
        fingerprint="synthetic",
        state={"classifier.weight": torch.from_numpy(weight), "classifier.bias": torch.zeros(len(weight))},
        epoch=1,
        config=config,
    )
    path = folder / "checkpoint.pt"
    save_checkpoint(checkpoint, path)
    provenance = {
        "checkpoint": {"sha256": file_digest(path), "path": str(path), "relative_path": path.name, "seed": 0},
        "config": {"dtype": "float16", "precision": "fp32", "views": 1},
        "dataset": dataset | {"fingerprint": "synthetic"},
        "network": network,
        "training": {name: config[name] for name in ("epochs", "lr")},
    }
    axes = {
        split: {"N": len(of_split), "H": SIDE, "W": SIDE, "C": CHANNELS} for split, of_split in label.items()
    }
    layouts = store_layout(axes, len(names), "float16", BATCH)
    return StoreSpec(layouts, "float16", names, provenance, {})
