"""Streams of batches over a split, from memory or through worker processes."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from extract.device import Compute
from extract.images import EVALUATION, ImageSet
from extract.transforms import Transform, augment_batch, image_views, normalise, view_batch
from store.errors import UserError

Batch = tuple[torch.Tensor, torch.Tensor]  # float32 (B, 3, H, W) normalised, int64 (B,) labels


def training_batches(
    split: ImageSet,
    transform: Transform,
    generator: torch.Generator,
    compute: Compute,
    taken: tuple[int, torch.Tensor | None] = (0, None),
) -> Iterator[Batch]:
    """One epoch in random order, augmented; wholly determined by `generator` (a CPU generator).

    Args:
        split: the images.
        transform: how they are prepared.
        generator: as the epoch begins with it.
        compute: where to.
        taken: batches at the beginning that are passed over unread, and the generator's state after them.
    """
    order = torch.randperm(len(split), generator=generator)
    label = torch.from_numpy(split.label)
    if split.in_memory:
        if taken[1] is not None:
            generator.set_state(taken[1])
        for index in order.split(compute.batch_size)[taken[0] :]:
            chosen = split.images[index].to(compute.device)
            images = augment_batch(chosen, transform, generator)
            yield normalise(images, transform), label[index].to(compute.device)
        return
    seeds = torch.randint(2**62, (len(split), 1), generator=generator)
    rest = order[taken[0] * compute.batch_size :]
    files = _Files(split, transform, rest.tolist(), seeds.numpy())
    for views, index in _loader(files, compute):
        yield normalise(views[:, 0].to(compute.device), transform), label[index].to(compute.device)


def evaluation_batches(split: ImageSet, transform: Transform, compute: Compute) -> Iterator[Batch]:
    """The split in its own order, each batch of images as often as they have views, view 0 first.

    A batch shows one view, so that view 0 goes through the network in the same batches whatever the number
    of views, and its features are the same to the bit.
    """
    label = torch.from_numpy(split.label)
    seeds = np.full((len(split), 1), EVALUATION) if split.seeds is None else split.seeds
    if split.in_memory:
        for start in range(0, len(split), compute.batch_size):
            batch = slice(start, start + compute.batch_size)  # which copies nothing
            images, of_batch = split.images[batch].to(compute.device), label[batch].to(compute.device)
            for of_view in seeds[batch].T:
                yield normalise(view_batch(images, transform, of_view), transform), of_batch
        return
    for views, index in _loader(_Files(split, transform, range(len(split)), seeds), compute):
        for images in views.unbind(1):
            yield normalise(images.to(compute.device), transform), label[index].to(compute.device)


class _Files(TorchDataset):
    """Image files for worker processes; a bad one comes back as its message, to be raised at home."""

    def __init__(self, split: ImageSet, transform: Transform, order: Sequence[int], seeds: np.ndarray):
        self.split, self.transform, self.order, self.seeds = split, transform, order, seeds

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> tuple[torch.Tensor | str, int]:
        index = self.order[position]
        try:
            path, seeds = self.split.images[index], self.seeds[index].tolist()
            return image_views(path, self.transform, seeds, self.split.expected(index)), index
        except UserError as error:
            return str(error), index


def available_cores() -> int:
    """Cores that this process may use; more workers would only make torch warn."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _collate(
    samples: list[tuple[torch.Tensor | str, int]],
) -> tuple[torch.Tensor | str, torch.Tensor]:
    for image, _ in samples:
        if isinstance(image, str):
            return image, torch.empty(0)
    return torch.stack([image for image, _ in samples]), torch.tensor([index for _, index in samples])


def _loader(files: _Files, compute: Compute) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Views (B, V, 3, H, W) and index (B,) of one batch of images after the other.

    Workers hand over parts of a batch, no larger than a batch of one view: what lies ready in shared memory
    does not grow with the number of views.
    """
    at_once = max(1, compute.batch_size // files.seeds.shape[1])
    batches = [_cut(batch, at_once) for batch in _cut(range(len(files)), compute.batch_size)]
    # A generator of its own, or DataLoader would draw its workers' seed from the global one.
    loader = DataLoader(
        files,
        batch_sampler=[part for batch in batches for part in batch],
        num_workers=min(compute.workers, available_cores()),
        collate_fn=_collate,
        generator=torch.Generator(),
    )
    loaded = iter(loader)
    for batch in batches:
        parts = []
        for _ in batch:
            images, index = next(loaded)
            if isinstance(images, str):
                raise UserError(images)
            parts.append((images, index))
        if len(parts) == 1:  # as it is: joining copies
            yield parts[0]
        else:
            yield tuple(torch.cat(values) for values in zip(*parts, strict=True))


def _cut(positions: range, n: int) -> list[range]:
    return [positions[start : start + n] for start in range(0, len(positions), n)]
