"""How training prepares images: as the options say, else as the network's authors do."""

from dataclasses import replace
from typing import Any

from extract.config import TrainConfig
from extract.dataset import Dataset
from extract.images.preparation import IN_MEMORY_SIZE, channels
from extract.images.transforms import Transform, channel_statistics
from extract.networks.family import Preparation
from extract.networks.registry import preparation
from store.errors import UserError


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
    if config.network.weights is not None and own.mean is not None:
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
    )
    return transform if size <= IN_MEMORY_SIZE else replace(transform, **_resizing(config, own))


def _resizing(config: TrainConfig, own: Preparation) -> dict[str, Any]:
    """How large images are resized, as fields of Transform."""
    if config.crop is not None:
        resize = round(config.image_size / config.crop)
    else:
        resize = own.resize and round(config.image_size * own.resize / own.image_size)
    return {"resize": resize, "interpolation": config.interpolation or own.interpolation}
