"""A store whose fine-tuning takes a known course with any release of torch.

Features are a few exact vectors, and Phase I takes every image of the tail class `rare` for `large`.
As fine-tuning raises the score of `rare` along its direction, predictions change in the order of the images'
strength along it, the strongest first:

    changed to rare                      over images    over classes
    none yet                                44 of 52          66.7 %
    2 of rare, strong                       46 of 52          75.0 %    best over images
    8 of large that look like rare          38 of 52          68.3 %
    6 of rare, weak as in training          44 of 52          93.3 %    best over classes, to the end
"""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from made_store import made_plan, write_made

from extract.checkpoints.checkpoint import Checkpoint, file_digest, save_checkpoint
from extract.config import DatasetConfig, NetworkConfig, TrainConfig
from extract.images.transforms import Transform
from store.schema import SPLITS

LARGE, RARE, OTHER = range(3)
CLASSES = ["large", "rare", "other"]
TRAIN = {LARGE: 40, RARE: 4, OTHER: 36}  # images, each of strength 1 along the direction of its class
HELD_OUT = [  # of val and of test: label, direction, strength, images
    (LARGE, LARGE, 1.0, 32),
    (LARGE, RARE, 3.0, 8),
    (RARE, RARE, 6.0, 2),
    (RARE, RARE, 1.0, 6),
    (OTHER, OTHER, 1.0, 4),
]
N_ALIKE = 8  # images of `large` that are taken for `rare` in the end
WEIGHT = np.diag([4, 0.1, 4]).astype(np.float32)
BIAS = np.array([2, -2, 0], np.float32)


def make_course_store(folder: Path) -> Path:
    """Write checkpoint.pt and feats.zarr to a folder; return the store's path."""
    train = [(label, label, 1.0, n) for label, n in TRAIN.items()]
    rows = {"classifier/weight": WEIGHT, "classifier/bias": BIAS}
    for split, groups in (("train", train), ("val", HELD_OUT), ("test", HELD_OUT)):
        rows |= _rows(split, groups)
    object_alone = np.array([[1, 0]], np.float16)  # the CAM of every map
    rows["train/cam"] = np.broadcast_to(object_alone, (len(rows["train/label"]), 1, 2))
    sizes = {split: {"N": len(rows[f"{split}/label"]), "H": 1, "W": 2, "C": 3} for split in SPLITS}
    plan = replace(made_plan(sizes), class_names=CLASSES, provenance=_provenance(folder))
    write_made(folder / "feats.zarr", plan, rows)
    return folder / "feats.zarr"


def _rows(split: str, groups: list[tuple[int, int, float, int]]) -> dict[str, np.ndarray]:
    """Maps of two positions, the object and an empty background, and their means."""
    label, direction, strength = (np.repeat([g[i] for g in groups], [g[3] for g in groups]) for i in range(3))
    pooled = (np.eye(3)[direction] * strength[:, None]).astype(np.float32)
    rows = {"label": label.astype(np.int32), "sample_index": np.arange(len(label)), "pooled": pooled}
    rows["view"] = np.zeros(len(label), np.int16)
    if split == "train":
        rows["feature_map"] = np.stack([2 * pooled, 0 * pooled], axis=1)[:, None].astype(np.float16)
    return {f"{split}/{name}": value for name, value in rows.items()}


def _provenance(folder: Path) -> dict:
    """The store's provenance; writes its checkpoint, which only has the FC layer."""
    network, dataset = asdict(NetworkConfig()), asdict(DatasetConfig("digits"))
    config, path = asdict(TrainConfig().resolved()), folder / "checkpoint.pt"
    state = {"classifier.weight": torch.from_numpy(WEIGHT), "classifier.bias": torch.from_numpy(BIAS)}
    counts = [TRAIN[label] for label in range(3)]
    made = Checkpoint(
        network, dataset, asdict(Transform(32)), CLASSES, counts, "made", state, epoch=1, config=config
    )
    save_checkpoint(made, path)
    return {
        "checkpoint": {"sha256": file_digest(path), "path": str(path), "relative_path": path.name, "seed": 0},
        "config": {"dtype": "float16", "precision": "fp32", "views": 1},
        "dataset": dataset | {"fingerprint": "made"},
        "network": network,
        "training": {name: config[name] for name in ("epochs", "lr")},
    }
