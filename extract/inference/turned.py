"""Predictions aggregated over images turned by quarters, of networks that were trained with `--loss sla`."""

import numpy as np
import torch
from rich.progress import Progress

from extract.checkpoints.checkpoint import Checkpoint
from extract.device import Compute
from extract.images.batches import evaluation_batches
from extract.images.image_set import ImageSet
from extract.images.transforms import Transform
from extract.inference.pieces import in_pieces
from extract.networks.parts import Network, pool
from extract.training.losses.sla import PREFIX, TURNS, joint_outputs, turns


def has_turned(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint holds outputs of turned images that belong to its FC layer."""
    return checkpoint.turned is not None and not checkpoint.finetuned


@torch.inference_mode()
def predict_aggregated(
    network: Network,
    checkpoint: Checkpoint,
    split: ImageSet,
    transform: Transform,
    compute: Compute,
    progress: Progress,
) -> np.ndarray:
    """(N,) int64 classes with the largest mean output over the four turns of each image.

    Args:
        network: of the checkpoint, on the device.
        checkpoint: that `has_turned`.
        split, transform, compute, progress: as in `predict`.
    """
    layer = [checkpoint.turned[PREFIX + name].to(compute.device) for name in ("weight", "bias")]
    task = progress.add_task("evaluating turned images", total=len(split), status="")
    network.eval()
    predictions = [torch.empty(0, dtype=torch.int64)]  # a share of an evaluation may have no images
    with in_pieces(network, compute) as pieces:
        for images, _ in evaluation_batches(split, transform, compute):
            total = 0
            for m, turned in enumerate(turns(images)):
                pooled = pool(pieces.features(turned))
                outputs = joint_outputs(network.classify(pooled), torch.nn.functional.linear(pooled, *layer))
                total = total + outputs[:, m::TURNS]
            predictions.append(total.argmax(dim=1).cpu())
            progress.advance(task, len(images))
    progress.remove_task(task)
    return torch.cat(predictions).numpy()
