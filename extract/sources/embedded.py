"""Where images come from: scikit-learn's digits, CIFAR through torchvision, and class folders.

A source lists its images by split; nothing is subsampled here, and files of a known extension are not opened.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from extract.config import DatasetConfig
from extract.images.image_set import ImageSet
from extract.sources.folders import list_folder
from store.errors import UserError, refuse_undecodable
from store.names import lookalikes

DIGITS_TEST_PER_CLASS = 30


@dataclass(frozen=True)
class Source:
    """All that a source holds: class names in order of class index, and its splits by name."""

    class_names: list[str]
    splits: dict[str, ImageSet]


def _image_set(images, label) -> ImageSet:
    label = np.asarray(label, dtype=np.int64)
    return ImageSet(images, label, np.arange(len(label)))


def digits() -> Source:
    """scikit-learn's 1,797 handwritten digits, 8×8 scaled to 32×32; 30 a class held out as test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = torch.from_numpy(data.images).float()[:, None] * (255 / 16)
    scaled = torch.nn.functional.interpolate(grey, (32, 32), mode="bilinear", align_corners=False)
    images = scaled.round().to(torch.uint8).expand(-1, 3, -1, -1)
    rng = np.random.RandomState(0)
    test = [rng.permutation(np.flatnonzero(data.target == c))[:DIGITS_TEST_PER_CLASS] for c in range(10)]
    test = np.sort(np.concatenate(test))
    train = np.setdiff1d(np.arange(len(images)), test)
    everything = _image_set(images.contiguous(), data.target)
    splits = {"train": everything.take(train), "test": everything.take(test)}
    return Source([str(digit) for digit in data.target_names], splits)


def cifar(name: str, root: Path, download: bool) -> Source:
    """CIFAR-10 or CIFAR-100 as torchvision stores it, checked against torchvision's own checksums."""
    import torchvision

    dataset = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
    try:
        parts = {
            split: dataset(root, train=split == "train", download=download) for split in ("train", "test")
        }
    except RuntimeError as error:
        raise UserError(
            f"{root}: no intact {name} found there ({error}); pass --download to fetch it, "
            "or --root with the folder that torchvision filled"
        ) from error
    splits = {
        split: _image_set(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), part.targets)
        for split, part in parts.items()
    }
    return Source(list(parts["train"].classes), splits)


def image_folder(root: Path, subfolders: bool = True) -> Source:
    """`ROOT/train/<class>/…`, an optional `val`, and `test`; classes are the folders of `train`, sorted.

    Args:
        root: the folder.
        subfolders: whether images in subfolders of a class count; see `list_folder`.

    Raises:
        UserError: a folder that is not so, or holds too little.
    """
    class_names, splits = list_folder(root, subfolders)
    return Source(class_names, {name: _image_set(*listed) for name, listed in splits.items()})


def refuse_undecodable_names(source: Source, root: Path) -> None:
    """Raise UserError for a name that cannot go into checkpoints, stores and tables, all of them UTF-8."""
    refuse_undecodable(str(root))
    for split in source.splits.values():
        for path in () if split.in_memory else split.images:
            refuse_undecodable(str(path))


def refuse_lookalikes(source: Source, config: DatasetConfig) -> None:
    """Raise UserError for two classes whose names nobody could tell apart."""
    if (alike := lookalikes(source.class_names)) is not None:
        raise UserError(
            f"{config.root or config.source}: the classes {alike[0]!a} and {alike[1]!a} are one name in two "
            "Unicode forms; put their images into one folder, or rename one"
        )


SOURCES: dict[str, Callable[[Path, DatasetConfig], Source]] = {
    "digits": lambda root, config: digits(),
    "cifar10": lambda root, config: cifar("cifar10", root, config.download),
    "cifar100": lambda root, config: cifar("cifar100", root, config.download),
    "imagefolder": lambda root, config: image_folder(root, config.subfolders),
}
