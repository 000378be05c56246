"""Predictions of loose images: the likeliest classes, and where in an image the evidence for the first is."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.progress import Progress

from analysis.csv_files import csv_text
from extract.cam import class_activation_maps
from extract.checkpoints.checkpoint import described, load_checkpoint
from extract.checkpoints.restore import note_unturned, restore_network
from extract.deploy.config import PredictConfig
from extract.deploy.loose_images import LooseImage, as_image_set, find_images
from extract.deploy.overlay import overlay, overlay_names, save_picture
from extract.deploy.targets import check_not_read
from extract.device import Compute, make_deterministic, resolve_device, use_device
from extract.images.image_set import ADVICE, find_unreadable
from extract.images.transforms import Transform, denormalise
from extract.inference.passes import images_and_maps
from extract.networks.parts import Network, pool
from extract.training.interrupted.unfinished import note_stopped_early
from store.errors import UserError
from store.notes import note
from store.storage.atomic import whole_folder, write_text


@dataclass(frozen=True)
class Likeliest:
    """The likeliest classes of images, the likeliest first.

    Attributes:
        class_id: (N, k) int64; of equally likely classes the first comes first, as in `evaluate`.
        probability: (N, k) float32, the softmax of the logits.
    """

    class_id: np.ndarray
    probability: np.ndarray


def predict(config: PredictConfig, progress: Progress) -> pd.DataFrame:
    """Run a checkpoint's network on loose images, read and prepared as in `evaluate`.

    Files are written when all images are done.

    Returns:
        A row for each image: path, class_1, probability_1, … class_k, probability_k.

    Raises:
        UserError: the checkpoint, an image or a target cannot be used.
    """
    config.check()
    images = find_images(config.images, config.path_column)
    if config.out is not None:
        check_not_read(Path(config.out), (str(image.path) for image in images))
    device = use_device(resolve_device(config.device))
    compute = Compute(device, config.precision, config.batch_size, config.workers)
    make_deterministic()
    path = Path(config.ckpt)
    checkpoint = load_checkpoint(path)
    network = restore_network(checkpoint, path, config.arch)
    note_stopped_early(checkpoint, path)
    transform = described(Transform, checkpoint.transform, path)
    if config.skip_bad_images:
        images = _readable(images, progress)
    note_unturned(transform, [image.path for image in images], path)
    network = network.to(compute.device, memory_format=compute.memory_format)
    with nullcontext() if config.cam is None else whole_folder(Path(config.cam)) as cam_folder:
        found = _likeliest(network, images, transform, compute, config.top, cam_folder, progress)
    frame = _as_frame(found, images, checkpoint.class_names)
    if config.out is not None:
        write_text(Path(config.out), csv_text(frame))
    return frame


def _readable(images: list[LooseImage], progress: Progress) -> list[LooseImage]:
    """The images that can be decoded; the others are named in notes."""
    bad, _ = find_unreadable([image.path for image in images], progress)
    for message in bad.values():
        note(f"left out: {message.removesuffix(ADVICE)}")
    readable = [image for row, image in enumerate(images) if row not in bad]
    if not readable:
        raise UserError(f"{images[0].name}: none of {len(images):,} images can be read; name others")
    return readable


@torch.inference_mode()
def _likeliest(
    network: Network,
    images: list[LooseImage],
    transform: Transform,
    compute: Compute,
    top: int,
    cam_folder: Path | None,
    progress: Progress,
) -> Likeliest:
    """The likeliest classes of images in their order; pictures of their maps if there is a folder."""
    names = iter(overlay_names(images) if cam_folder is not None else ())
    task = progress.add_task("predicting", total=len(images), status="")
    class_ids, probabilities = [], []
    for batch, maps in images_and_maps(network, as_image_set(images), transform, compute):
        logits = network.classify(pool(maps))
        order = logits.argsort(dim=1, descending=True, stable=True)[:, :top]
        class_ids.append(order.cpu())
        probabilities.append(logits.softmax(dim=1).gather(1, order).cpu())
        if cam_folder is not None:
            weight = network.classifier.weight
            cams = class_activation_maps(maps.permute(0, 2, 3, 1), weight, order[:, 0])
            for pixels in overlay(denormalise(batch, transform), cams):
                save_picture(pixels, cam_folder / next(names))
        progress.advance(task, len(maps))
    progress.remove_task(task)
    return Likeliest(torch.cat(class_ids).numpy(), torch.cat(probabilities).numpy())


def _as_frame(found: Likeliest, images: list[LooseImage], class_names: list[str]) -> pd.DataFrame:
    names = np.array(class_names, dtype=object)
    columns: dict[str, object] = {"path": [image.name for image in images]}
    for rank in range(found.class_id.shape[1]):
        columns[f"class_{rank + 1}"] = names[found.class_id[:, rank]]
        columns[f"probability_{rank + 1}"] = found.probability[:, rank]
    return pd.DataFrame(columns)
