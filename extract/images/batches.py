"""Streams of batches of a split, from memory or through worker processes."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle

import numpy as np
import torch

from extract.device import Compute
from extract.images.image_set import EVALUATION, ImageSet
from extract.images.parts import ImageFiles
from extract.images.transforms import Transform, augment_batch, normalise, view_batch
from extract.images.workers import load_batches, load_parts
from extract.inference.transfer import to_device
from extract.training.together.ranks import ONE_PROCESS, Ranks

Batch = tuple[torch.Tensor, torch.Tensor]  # float32 (B, 3, H, W) normalised, int64 (B,) labels


def training_batches(
    split: ImageSet,
    transform: Transform,
    generator: torch.Generator,
    compute: Compute,
    taken: tuple[int, torch.Tensor | None] = (0, None),
    drawn: torch.Tensor | None = None,
    ranks: Ranks = ONE_PROCESS,
) -> Iterator[Batch]:
    """One epoch in random order, augmented; determined by `generator` (a CPU generator) and `drawn` alone.

    Args:
        split: the images; of those in memory, batches are gathered where they are (see `resident`).
        transform: how they are prepared.
        generator: in its state at the start of the epoch.
        compute: device and batch size.
        taken: number of batches at the start to skip unread, and the generator's state after them.
        drawn: (N,) int64 positions of the images, of a sampler; by default each image once.
        ranks: processes that need the same batches: each reads its share of the files. Of images in memory
            each prepares all, which takes less time than to hand them over.
    """
    order = torch.randperm(len(split), generator=generator) if drawn is None else drawn
    label = torch.from_numpy(split.label)
    if split.in_memory:
        if taken[1] is not None:
            generator.set_state(taken[1])
        for index in order.split(compute.batch_size)[taken[0] :]:
            there = to_device(index, split.images.device)
            chosen = to_device(split.images[there], compute.device)
            images = augment_batch(chosen, transform, generator)
            yield normalise(images, transform), to_device(label[index], compute.device)
        return
    seeds = torch.randint(2**62, (len(order), 1), generator=generator)
    seeds = seeds[order] if drawn is None else seeds  # an image that comes twice looks another way each time
    start, size = taken[0] * compute.batch_size, compute.batch_size
    order, seeds = order[start:], seeds[start:]
    if not len(order):  # all of the epoch was taken
        return
    own = torch.cat([batch[ranks.rows(len(batch))] for batch in torch.arange(len(order)).split(size)])
    files = ImageFiles(split, transform, order[own].tolist(), seeds[own].numpy())
    rows = ranks.rows(size)
    loaded = load_batches(files, replace(compute, batch_size=rows.stop - rows.start), in_turns=True)
    for (views, _), index in zip(loaded, order.split(size), strict=True):
        images = ranks.gathered(to_device(views[:, 0], compute.device), len(index))
        yield normalise(images, transform), to_device(label[index], compute.device)


def evaluation_batches(
    split: ImageSet, transform: Transform, compute: Compute, kept: int | None = None
) -> Iterator[Batch]:
    """The split in its own order: each batch of images once for each of its views, view 0 first.

    A batch holds one view, so that view 0 goes through the network in the same batches whatever the number of
    views, and its features are bit-identical.

    Args:
        split: the images.
        transform: how they are prepared.
        compute: device and batch size.
        kept: how many batches, the last ones, have to stay as they are when another is asked for; None for
            all. The memory of others is used again, which saves time.
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
    files = ImageFiles(split, transform, range(len(split)), seeds)
    kept = kept if compute.device.type == "cpu" else None  # a GPU's memory is reused anyway
    if kept is not None and split.n_views == 1:
        for images, rows in _normalised_parts(files, compute, kept):
            yield images, label[rows]
        return
    buffers: deque[torch.Tensor] = deque()
    for views, index in load_batches(files, compute):
        of_batch = to_device(label[index], compute.device)
        for images in views.unbind(1):
            out = buffers[0][: len(images)] if len(buffers) == kept else None
            normalised = normalise(to_device(images, compute.device), transform, out)
            if out is not None:
                buffers.rotate(-1)
            elif kept is not None:
                buffers.append(normalised)  # of the first batches, the largest
            yield normalised, of_batch


def _normalised_parts(files: ImageFiles, compute: Compute, kept: int) -> Iterator[tuple[torch.Tensor, slice]]:
    """Batches of files of one view, normalised, and their rows; on the CPU, in the memory of so many.

    Each part is normalised straight from where its worker put it, without a copy of the whole batch.
    """
    n_images, size, side = len(files.order), compute.batch_size, files.transform.image_size
    memory = cycle([torch.empty(min(size, n_images), 3, side, side) for _ in range(kept)])
    for views, positions in load_parts(files, compute):
        start = positions[0] % size
        if start == 0:
            buffer = next(memory)
        end, done = start + len(views), positions[-1] + 1
        normalise(views[:, 0], files.transform, buffer[start:end])
        if end == size or done == n_images:
            yield buffer[:end], slice(done - end, done)
