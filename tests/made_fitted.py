"""Stores of `extract --classifier fit`, extracted from noise with a small network of timm's."""

from pathlib import Path

import torch
from bad_input import succeed, write_images
from PIL import Image

ARCH = ("--arch", "timm:test_efficientnet")
PAIRS = {"ape": 22, "bee": 12, "cat": 5, "dog": 1}  # images of `write_pairs`


def write_weights(folder: Path) -> Path:
    """A "pre-trained" network for other classes, in timm's own names."""
    import timm  # takes seconds, which tests without such stores do not wait for

    path = folder / "net.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        torch.save(timm.create_model("test_efficientnet", num_classes=7).state_dict(), path)
    return path


def write_photos(root: Path, per_class: dict[str, int], splits: tuple[str, ...]) -> Path:
    """Class folders of noise, of another brightness for each class."""
    write_images(root, per_class, splits)
    for path in root.rglob("*.png"):
        brightness = 0.4 + 0.3 * sorted(per_class).index(path.parent.name)
        Image.open(path).point(lambda value, by=brightness: int(value * by)).resize((70, 70)).save(path)
    return root


def options(weights: Path, photos: Path, store: Path | str = "feats.zarr") -> list[object]:
    """An extraction of 64 × 64 pixels."""
    of_images = ("--root", photos, "--image-size", 64, "--device", "cpu", "--batch-size", 8)
    return ["--store", store, *ARCH, "--weights", weights, *of_images, "--classifier", "fit"]


def fit_store(folder: Path, photos: Path, *more: object) -> Path:
    """A store of float32 maps."""
    store = folder / "feats.zarr"
    succeed("extract", *options(write_weights(folder), photos, store), "--dtype", "float32", *more)
    return store


def write_pairs(root: Path) -> Path:
    """PAIRS, two images to a group; the group comes first in a file's name. No validation split."""
    write_photos(root, PAIRS, ("train", "test"))
    for path in sorted(root.rglob("*.png")):
        number = int(path.stem)
        path.rename(path.with_name(f"{number // 2}-{number}.png"))
    return root


GROUPS = ("--group-regex", r"^[a-z]+/[a-z]+/\d+")
