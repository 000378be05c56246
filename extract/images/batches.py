"""Streams of batches of a split, from memory or through worker processes."""

from collections.abc import Iterator

import numpy as np
import torch

from extract.device import Compute
from extract.images.image_set import EVALUATION, ImageSet
from extract.images.parts import ImageFiles
from extract.images.transforms import Transform, augment_batch, normalise, view_batch
from extract.images.workers import load_batches
from extract.transfer import to_device

Batch = tuple[torch.Tensor, torch.Tensor]  # float32 (B, 3, H, W) normalised, int64 (B,) labels


def training_batches(
    split: ImageSet,
    transform: Transform,
    generator: torch.Generator,
    compute: Compute,
    taken: tuple[int, torch.Tensor | None] = (0, None),
    drawn: torch.Tensor | None = None,
) -> Iterator[Batch]:
    """One epoch in random order, augmented; determined by `generator` (a CPU generator) and `drawn` alone.

    Args:
        split: the images.
        transform: how they are prepared.
        generator: in its state at the start of the epoch.
        compute: device and batch size.
        taken: number of batches at the start to skip unread, and the generator's state after them.
        drawn: (N,) int64 positions of the images, of a sampler; by default each image once.
    """
    order = torch.randperm(len(split), generator=generator) if drawn is None else drawn
    label = torch.from_numpy(split.label)
    if split.in_memory:
        if taken[1] is not None:
            generator.set_state(taken[1])
        for index in order.split(compute.batch_size)[taken[0] :]:
            chosen = to_device(split.images[index], compute.device)
            images = augment_batch(chosen, transform, generator)
            yield normalise(images, transform), to_device(label[index], compute.device)
        return
    seeds = torch.randint(2**62, (len(order), 1), generator=generator)
    seeds = seeds[order] if drawn is None else seeds  # an image that comes twice looks another way each time
    start = taken[0] * compute.batch_size
    files = ImageFiles(split, transform, order[start:].tolist(), seeds[start:].numpy())
    for views, index in load_batches(files, compute):
        images = to_device(views[:, 0], compute.device)
        yield normalise(images, transform), to_device(label[index], compute.device)


def evaluation_batches(
    split: ImageSet, transform: Transform, compute: Compute, reuse: bool = False
) -> Iterator[Batch]:
    """The split in its own order: each batch of images once for each of its views, view 0 first.

    A batch holds one view, so that view 0 goes through the network in the same batches whatever the number of
    views, and its features are bit-identical.

    Args:
        split: the images.
        transform: how they are prepared.
        compute: device and batch size.
        reuse: whether a batch may be overwritten when the next is asked for, which saves memory and time.
    """
    label = torch.from_numpy(split.label)
    seeds = np.full((len(split), 1), EVALUATION) if split.seeds is None else split.seeds
    if split.in_memory:
        for start in range(0, len(split), compute.batch_size):
            batch = slice(start, start + compute.batch_size)  # a slice copies nothing
            images, of_batch = (to_device(values[batch], compute.device) for values in (split.images, label))
            for of_view in seeds[batch].T:
                yield normalise(view_batch(images, transform, of_view), transform), of_batch
        return
    buffer: torch.Tensor | None = None
    reuse = reuse and compute.device.type == "cpu"  # a GPU's memory is reused anyway
    for views, index in load_batches(ImageFiles(split, transform, range(len(split)), seeds), compute):
        of_batch = to_device(label[index], compute.device)
        for images in views.unbind(1):
            out = None if buffer is None else buffer[: len(images)]
            normalised = normalise(to_device(images, compute.device), transform, out)
            if reuse and buffer is None:
                buffer = normalised  # of the first batch, the largest
            yield normalised, of_batch
