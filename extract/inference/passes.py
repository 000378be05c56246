"""Running a network in evaluation mode, the same way in every phase."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import cycle

import numpy as np
import torch
from rich.progress import Progress

from extract.device import Compute
from extract.images.batches import evaluation_batches
from extract.images.image_set import ImageSet
from extract.images.transforms import Transform
from extract.inference.pieces import in_pieces
from extract.inference.transfer import kept_ahead, to_host
from extract.networks.parts import Network, pool


def by_class(split: ImageSet) -> ImageSet:
    """The split in the store's row order: by label, then by position in the source."""
    return split.take(np.lexsort((split.sample_index, split.label)))


def feature_maps(
    network: Network,
    split: ImageSet,
    transform: Transform,
    compute: Compute,
    watched: AbstractContextManager | None = None,
) -> Iterator[torch.Tensor]:
    """Feature maps (B, C, H, W), batch by batch in the split's order, on the device.

    A batch of images with V views gives V batches of maps, one of each view. `watched` is as in `in_pieces`.
    """
    return (maps for _, maps in images_and_maps(network, split, transform, compute, watched))


@torch.inference_mode()
def images_and_maps(
    network: Network,
    split: ImageSet,
    transform: Transform,
    compute: Compute,
    watched: AbstractContextManager | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Like `feature_maps`, each with its images, normalised (B, 3, H, W), until the next is asked for."""
    network.eval()
    with in_pieces(network, compute, watched) as pieces:
        kept = 1 + pieces.n_ahead
        batches = ((images, images) for images, _ in evaluation_batches(split, transform, compute, kept))
        yield from kept_ahead(batches, pieces.begin, pieces.end, pieces.n_ahead)


def numbered_maps(
    network: Network,
    split: ImageSet,
    transform: Transform,
    compute: Compute,
    watched: AbstractContextManager | None = None,
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Like `feature_maps`, each with the position of its first image in the split and its view."""
    start, views = 0, cycle(range(split.n_views))
    maps_of_views = feature_maps(network, split, transform, compute, watched)
    for view, maps in zip(views, maps_of_views, strict=False):
        yield start, view, maps
        if view == split.n_views - 1:
            start += len(maps)


@torch.inference_mode()
def predict(
    network: Network, split: ImageSet, transform: Transform, compute: Compute, progress: Progress
) -> np.ndarray:
    """(N,) int64 predicted class of every image of a split."""
    task = progress.add_task("evaluating", total=len(split), status="")
    predictions = [torch.empty(0, dtype=torch.int64)]  # a share of an evaluation may have no images
    batches = (
        (len(maps), {"class": network.classify(pool(maps)).argmax(dim=1)})
        for maps in feature_maps(network, split, transform, compute)
    )
    for n_images, predicted in to_host(batches, compute.device):
        predictions.append(predicted["class"])
        progress.advance(task, n_images)
    progress.remove_task(task)
    return torch.cat(predictions).numpy()
