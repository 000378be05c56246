"""Where images come from: scikit-learn's digits, CIFAR through torchvision, and class folders.

A source lists its images by split; nothing is subsampled here, and files are not opened.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from extract.images import ImageSet
from store.errors import UserError, refuse_undecodable

DIGITS_TEST_PER_CLASS = 30
SPLITS = ("train", "val", "test")


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


def image_folder(root: Path) -> Source:
    """`ROOT/train/<class>/*`, an optional `val`, and `test`; classes are the folders of `train`, sorted.

    Raises:
        UserError: a missing or empty root or split, fewer than two classes, a class folder without
            images, or a val or test class that train does not have.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; --root must hold train/<class>/* and test/<class>/*")
    for split in ("train", "test"):
        if not (root / split).is_dir():
            found = ", ".join(sorted(p.name for p in root.iterdir())[:5]) or "nothing"
            raise UserError(
                f"{root}: has no {split}/ folder (found {found}); expected {split}/<class>/<image>"
            )
    class_names = _class_folders(root / "train")
    if len(class_names) < 2:
        found = ", ".join(class_names) or "none"
        raise UserError(f"{root / 'train'}: at least two class folders are needed, found {found}")
    present = [split for split in SPLITS if (root / split).is_dir()]
    return Source(class_names, {split: _list_split(root / split, class_names) for split in present})


def refuse_undecodable_names(source: Source, root: Path) -> None:
    """Raise UserError for a name that cannot go into checkpoints, stores and tables, all of them UTF-8."""
    files = [path for split in source.splits.values() if not split.in_memory for path in split.images]
    refuse_undecodable(str(root), *map(str, files))


def _class_folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _list_split(folder: Path, class_names: list[str]) -> ImageSet:
    present = _class_folders(folder)
    unknown = sorted(set(present) - set(class_names))
    if unknown:
        raise UserError(
            f"{folder / unknown[0]}: class {unknown[0]!r} is not among the {len(class_names)} classes "
            f"of train; rename or remove the folder"
        )
    if not present:
        raise UserError(f"{folder}: holds no class folders; expected {folder.name}/<class>/<image>")
    paths, label = [], []
    for class_id, name in enumerate(class_names):
        if name not in present:
            continue
        files = sorted(p for p in (folder / name).iterdir() if _is_image(p))
        if not files:
            raise UserError(
                f"{folder / name}: holds no images ({', '.join(IMG_EXTENSIONS)}); add some or remove it"
            )
        paths += files
        label += [class_id] * len(files)
    return _image_set(paths, label)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".") and path.is_file()


SOURCES: dict[str, Callable[[Path, bool], Source]] = {
    "digits": lambda root, download: digits(),
    "cifar10": lambda root, download: cifar("cifar10", root, download),
    "cifar100": lambda root, download: cifar("cifar100", root, download),
    "imagefolder": lambda root, download: image_folder(root),
}
