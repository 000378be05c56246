"""From uint8 images to what the network sees: evaluation and training transforms.

Small images are augmented as a batch on the training device (pad, random crop, flip: the CIFAR recipe);
large ones one by one in worker processes (random resized crop, flip: the ImageNet recipe). Every random
choice comes from a generator or seed given by the caller.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torchvision.transforms import v2

from extract.images import IN_MEMORY_SIZE, ImageSet, read_image, resize_and_crop

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP_PADDING = 4  # of a 32-pixel image; He et al. 2016, sec. 4.2


@dataclass(frozen=True)
class Transform:
    """How images are prepared; it travels in the checkpoint.

    Attributes:
        image_size: side of the square that the network sees, in pixels.
        mean, std: of each channel, in units of the [0, 1] range.
        flip: mirror half of the training images (never for digits).
    """

    image_size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    flip: bool = True


def channel_statistics(train: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of a split; ImageNet's where it is not in memory."""
    if not train.in_memory:
        return IMAGENET_MEAN, IMAGENET_STD
    pixels = train.images.permute(1, 0, 2, 3).flatten(1).double() / 255
    std = pixels.std(dim=1).clamp_min(1e-3)  # a channel of one value would divide by zero
    return tuple(pixels.mean(dim=1).tolist()), tuple(std.tolist())


def normalise(images: torch.Tensor, transform: Transform) -> torch.Tensor:
    """uint8 (B, 3, H, W) to float32, channel by channel to mean 0 and standard deviation 1."""
    mean = torch.tensor(transform.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(transform.std, device=images.device).view(1, 3, 1, 1)
    return images.float().div_(255).sub_(mean).div_(std)  # in place: fresh memory costs more than arithmetic


def augment_batch(images: torch.Tensor, transform: Transform, generator: torch.Generator) -> torch.Tensor:
    """Pad, crop at random and flip a whole batch with one gather.

    Args:
        images: uint8 (B, 3, H, W) on any device.
        transform: supplies the flip.
        generator: on the CPU, so that the draws are the same whatever the device.

    Returns:
        uint8 (B, 3, H, W) in channels-last memory.
    """
    n, _, height, width = images.shape
    padding = max(1, CROP_PADDING * height // 32)
    device = images.device
    top, left = torch.randint(2 * padding + 1, (2, n, 1), generator=generator).to(device)
    mirrored = torch.rand(n, 1, generator=generator).to(device) < (0.5 if transform.flip else 0.0)
    across = torch.arange(width, device=device)
    rows = top + torch.arange(height, device=device)  # (B, H)
    columns = left + torch.where(mirrored, width - 1 - across, across)  # (B, W)
    padded = torch.nn.functional.pad(images, [padding] * 4)
    batch = torch.arange(n, device=device)[:, None, None]
    cropped = padded[batch, :, rows[:, :, None], columns[:, None, :]]  # (B, H, W, 3)
    return cropped.permute(0, 3, 1, 2)


def evaluation_image(path: Path, transform: Transform) -> torch.Tensor:
    """One file as the network sees it in evaluation, uint8 (3, H, W)."""
    size = transform.image_size
    resize = size if size <= IN_MEMORY_SIZE else round(size * 256 / 224)
    return resize_and_crop(read_image(path), resize, size)


def training_image(path: Path, transform: Transform, seed: int) -> torch.Tensor:
    """One file cropped and flipped at random from `seed`, uint8 (3, H, W)."""
    augment = v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(transform.image_size, antialias=True),
            v2.RandomHorizontalFlip(0.5 if transform.flip else 0.0),
        ]
    )
    image = read_image(path)
    with torch.random.fork_rng(devices=[]):  # v2 draws from the global generator
        torch.manual_seed(seed)
        return augment(image)
