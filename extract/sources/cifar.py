"""CIFAR-10 and CIFAR-100 as torchvision stores them, checked against torchvision's own checksums."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.sources.source import Source
from store.errors import UserError

if TYPE_CHECKING:
    from extract.sources.listing import Listing


def list_cifar(name: str, root: Path, config: Any) -> "Listing":
    """One of the two, in a folder that torchvision filled, or fills now if `config.download` is set.

    Args:
        name: in torchvision, CIFAR10 or CIFAR100.
        root: the folder.
        config: the DatasetConfig.

    Raises:
        UserError: there are no intact files.
    """
    import torch
    import torchvision

    from extract.sources.listing import Listing, listed_images

    dataset = getattr(torchvision.datasets, name)
    try:
        parts = {
            split: dataset(root, train=split == "train", download=config.download)
            for split in ("train", "test")
        }
    except RuntimeError as error:
        raise UserError(
            f"{root}: no intact {name.lower()} found there ({error}); pass --download to download it, "
            "or --root with the folder that torchvision filled"
        ) from error
    splits = {
        split: listed_images(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), part.targets)
        for split, part in parts.items()
    }
    return Listing(list(parts["train"].classes), splits)


OPTIONS = ("root", "download", "no_flip")
CIFAR10 = Source(partial(list_cifar, "CIFAR10"), OPTIONS, mirrored=True)
CIFAR100 = Source(partial(list_cifar, "CIFAR100"), OPTIONS, mirrored=True)
