"""How training prepares images: as the options say, else as the network's authors do."""

from dataclasses import replace
from typing import Any

from extract.config import NetworkConfig, TrainConfig
from extract.dataset import Dataset
from extract.images.preparation import IN_MEMORY_SIZE, channels
from extract.images.transforms import IMAGENET_MEAN, IMAGENET_STD, Transform, channel_statistics
from extract.networks.factory import is_factory
from extract.networks.family import Preparation
from extract.networks.registry import preparation
from store.errors import UserError
from store.notes import note


def transform_for(config: TrainConfig, dataset: Dataset) -> Transform:
    """The transform for training a network from these options.

    Raises:
        UserError: an image size that differs from that of the images in memory.
    """
    size = config.image_size
    if dataset.train.in_memory and dataset.train.images.shape[-1] != size:
        native = dataset.train.images.shape[-1]
        raise UserError(
            f"--image-size {size}: {config.dataset.dataset} images are {native}×{native}; use a network "
            "for small images (resnet32, resnet18-cifar, …), without --image-size"
        )
    own = preparation(config.network)
    if own.mean is not None and (config.network.weights is not None or own.said_by):
        mean, std = own.mean, own.std
    else:
        mean, std = channel_statistics(dataset.train)
    transform = Transform(
        size,
        mean if config.mean is None else channels("mean", config.mean),
        std if config.std is None else channels("std", config.std),
        flip=config.dataset.mirrored,
        upright=True,
        white={},
        **config.augmentation.changes(),
    )
    return transform if size <= IN_MEMORY_SIZE else replace(transform, **_resizing(config, own))


def note_statistics(config: TrainConfig, transform: Transform) -> None:
    """Note mean and standard deviation for a function of the user's, whose weights may have seen others."""
    if not is_factory(config.network.arch) or (config.mean is not None and config.std is not None):
        return
    mean, std = in_words(transform)
    whose = whose_statistics(transform, config, config.network)
    note(
        f"--arch {config.network.arch}: images reach it less mean {mean}, by standard deviation {std} "
        f"({whose}); if its weights saw others, name them with --mean and --std"
    )


def in_words(transform: Transform) -> tuple[str, str]:
    """Mean and standard deviation of the channels, short."""
    return tuple(", ".join(f"{value:.3g}" for value in values) for values in (transform.mean, transform.std))


def whose_statistics(transform: Transform, config: Any, network: NetworkConfig) -> str:
    """Where mean and standard deviation come from; `config` may have both as options."""
    if config.mean is not None and config.std is not None:
        return "as named"
    own = preparation(network)
    if (transform.mean, transform.std) == (own.mean, own.std):
        return f"as {own.said_by} says" if own.said_by else "of its authors"
    if (transform.mean, transform.std) == (IMAGENET_MEAN, IMAGENET_STD):
        return "of ImageNet, for the network says none" if is_factory(network.arch) else "of ImageNet"
    return "of these training images"


def _resizing(config: TrainConfig, own: Preparation) -> dict[str, Any]:
    """How large images are resized, as fields of Transform."""
    if config.crop is not None:
        resize = round(config.image_size / config.crop)
    else:
        resize = own.resize and round(config.image_size * own.resize / own.image_size)
    return {"resize": resize, "interpolation": config.interpolation or own.interpolation}
