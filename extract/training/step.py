"""A training under way, and one step of it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from extract.config import TrainConfig
from extract.device import Compute
from extract.networks.parts import Network
from extract.training.batch import Batch
from extract.training.losses.objective import Objective
from extract.training.unfinished_epoch import EpochState, forget_epoch
from store.errors import UserError


@dataclass
class Training:
    """Everything that changes from epoch to epoch, and the loss."""

    network: Network
    optimizer: torch.optim.SGD
    objective: Objective
    epoch: int
    history: list[dict[str, Any]]
    epoch_state: EpochState


def take_step(training: Training, batch: Batch, rate: float, progress: float, compute: Compute) -> None:
    """One step of SGD.

    Args:
        training: changes.
        batch: on the device.
        rate: learning rate.
        progress: finished epochs, with fractions, as a share of all.
        compute: precision and memory format.
    """
    network, optimizer, epoch_state = training.network, training.optimizer, training.epoch_state
    epoch_state.is_whole = False
    optimizer.param_groups[0]["lr"] = rate
    with compute.autocast():
        pooled = network.pooled(batch.images.contiguous(memory_format=compute.memory_format))
        logits = network.classify(pooled)
    loss = training.objective.mean(logits, pooled, batch, progress)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    epoch_state.loss += loss.detach() * len(batch.labels)
    epoch_state.n_correct += (logits.argmax(dim=1) == batch.labels).sum()
    epoch_state.step += 1
    epoch_state.is_whole = True


def epoch_row(training: Training, config: TrainConfig, n_images: int) -> dict[str, Any]:
    """The row of a finished epoch in metrics.csv."""
    mean_loss = training.epoch_state.loss.item() / n_images
    rate, epoch = training.optimizer.param_groups[0]["lr"], training.epoch + 1
    finite = all(parameter.isfinite().all() for parameter in training.network.parameters())
    if not (finite and math.isfinite(mean_loss)):  # the last step's damage only shows in the weights
        training.epoch_state.is_whole = False  # not to be resumed
        forget_epoch(Path(config.out))
        what = "weights became infinite or NaN" if math.isfinite(mean_loss) else f"loss became {mean_loss}"
        raise UserError(
            f"{config.out}: the {what} in epoch {epoch} at lr {rate:g}; start over (--overwrite) with a "
            "lower --lr or more --warmup-epochs"
        )
    train_accuracy = 100 * training.epoch_state.n_correct.item() / n_images
    return {"epoch": epoch, "lr": rate, "loss": mean_loss, "train_accuracy": train_accuracy}
