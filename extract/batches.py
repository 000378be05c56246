"""Streams of batches over a split, from memory or through worker processes."""

import os
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from extract.device import Compute
from extract.images import ImageSet
from extract.transforms import (
    Transform,
    augment_batch,
    evaluation_image,
    normalise,
    training_image,
)
from store.errors import UserError

Batch = tuple[torch.Tensor, torch.Tensor]  # float32 (B, 3, H, W) normalised, int64 (B,) labels


def training_batches(
    split: ImageSet,
    transform: Transform,
    generator: torch.Generator,
    compute: Compute,
) -> Iterator[Batch]:
    """One epoch in random order, augmented; wholly determined by `generator` (a CPU generator)."""
    order = torch.randperm(len(split), generator=generator)
    label = torch.from_numpy(split.label)
    if split.in_memory:
        for index in order.split(compute.batch_size):
            chosen = split.images[index].to(compute.device)
            images = augment_batch(chosen, transform, generator)
            yield normalise(images, transform), label[index].to(compute.device)
        return
    seeds = torch.randint(2**62, (len(split),), generator=generator)
    files = _Files(split, transform, order.tolist(), seeds.tolist())
    for images, index in _loader(files, compute):
        yield normalise(images.to(compute.device), transform), label[index].to(compute.device)


def evaluation_batches(split: ImageSet, transform: Transform, compute: Compute) -> Iterator[Batch]:
    """The split in its own order under the evaluation transform."""
    label = torch.from_numpy(split.label)
    if split.in_memory:
        batches = (values.split(compute.batch_size) for values in (split.images, label))
        for images, of_batch in zip(*batches, strict=True):  # views: nothing is copied
            yield normalise(images.to(compute.device), transform), of_batch.to(compute.device)
        return
    files = _Files(split, transform, list(range(len(split))), seeds=None)
    for images, index in _loader(files, compute):
        yield normalise(images.to(compute.device), transform), label[index].to(compute.device)


class _Files(TorchDataset):
    """Image files for worker processes; a bad one comes back as its message, to be raised at home."""

    def __init__(self, split: ImageSet, transform: Transform, order: list[int], seeds: list[int] | None):
        self.paths, self.transform, self.order, self.seeds = split.images, transform, order, seeds

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> tuple[torch.Tensor | str, int]:
        index = self.order[position]
        try:
            if self.seeds is None:
                return evaluation_image(self.paths[index], self.transform), index
            return training_image(self.paths[index], self.transform, self.seeds[index]), index
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
    # A generator of its own, or DataLoader would draw its workers' seed from the global one.
    loader = DataLoader(
        files,
        compute.batch_size,
        num_workers=min(compute.workers, available_cores()),
        collate_fn=_collate,
        generator=torch.Generator(),
    )
    for images, index in loader:
        if isinstance(images, str):
            raise UserError(images)
        yield images, index
