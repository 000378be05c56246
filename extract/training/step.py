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
from extract.training.interrupted.unfinished_epoch import EpochState, forget_epoch
from extract.training.losses.objective import Objective
from extract.training.mixing import mixed_features
from extract.training.optimisation.accumulation import ALONE, Turn
from extract.training.optimisation.optimizer import Optimizer
from extract.training.optimisation.sam import SameDraws, uphill
from extract.training.recorded import PROCESSES
from extract.training.together.ranks import ONE_PROCESS, Ranks
from store.errors import UserError


@dataclass
class Training:
    """Everything that changes from epoch to epoch, and the loss.

    `unfinished` is the saved state within the epoch, of an earlier run, until it is gone on from.
    """

    network: Network
    optimizer: Optimizer
    objective: Objective
    epoch: int
    history: list[dict[str, Any]]
    epoch_state: EpochState
    ranks: Ranks = ONE_PROCESS
    layout: torch.memory_format = torch.contiguous_format
    unfinished: dict[str, Any] | None = None

    @property
    def is_resumable(self) -> bool:
        """Whether its state within the epoch can be saved: no step is half done, in any process."""
        half = self.ranks.world > 1 and self.optimizer.waits  # each process has gradients of its own rows
        return self.epoch_state.is_whole and self.epoch_state.step > 0 and not half


def take_step(
    training: Training, batch: Batch, rate: float, progress: float, compute: Compute, turn: Turn = ALONE
) -> None:
    """One step of SGD, or one of the batches that a step is made of.

    Args:
        training: changes.
        batch: on the device, whole in every process.
        rate: learning rate.
        progress: finished epochs, with fractions, as a share of all.
        compute: precision and memory format.
        turn: the batch's place in its step.
    """
    optimizer, epoch_state, ranks = training.optimizer, training.epoch_state, training.ranks
    epoch_state.is_whole = False
    if turn.first:
        optimizer.begin()
    draws = SameDraws(compute.device) if optimizer.options.sam else None
    loss, logits = _loss(training, batch, progress, compute)
    (loss if turn is ALONE else loss * turn.share).backward()
    if optimizer.options.sam:
        ranks.sum_gradients(training.network)
        with uphill(training.network, optimizer.options.sam):
            optimizer.begin()
            draws.repeat()
            _loss(training, batch, progress, compute)[0].backward()
    if turn.last:
        ranks.sum_gradients(training.network)
        optimizer.step(rate)
        training.objective.constrain()
        optimizer.follow()
    else:
        optimizer.wait()
    epoch_state.loss += loss.detach() * len(batch.labels)
    epoch_state.n_correct += batch.n_correct(logits.argmax(dim=1))
    epoch_state.step += 1
    epoch_state.is_whole = True


def _loss(
    training: Training, batch: Batch, progress: float, compute: Compute
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean loss of a batch, and its (B, K) logits."""
    network, ranks, images = training.network, training.ranks, training.objective.images(batch.images)
    n_images = len(images)
    images = images[ranks.rows(n_images)]
    with compute.autocast():
        pooled = network.pooled(images.contiguous(memory_format=training.layout))
        pooled = mixed_features(ranks.gathered(pooled, n_images), batch)
        logits = network.classify(pooled)
    return training.objective.mean(logits, pooled, batch, progress), logits[: len(batch.labels)]


def epoch_row(training: Training, config: TrainConfig, n_images: int) -> dict[str, Any]:
    """The row of a finished epoch in metrics.csv."""
    mean_loss = training.epoch_state.loss.item() / n_images
    rate, epoch = training.optimizer.rate, training.epoch + 1
    finite = all(parameter.isfinite().all() for parameter in training.network.parameters())
    if not (finite and math.isfinite(mean_loss)):  # the last step's damage only shows in the weights
        training.epoch_state.is_whole = False  # not to be resumed
        forget_epoch(Path(config.out))
        what = "weights became infinite or NaN" if math.isfinite(mean_loss) else f"loss became {mean_loss}"
        raise UserError(
            f"{config.out}: the {what} in epoch {epoch} at lr {rate:g}; start over (--overwrite) with a "
            "lower --lr or more --warmup-epochs"
        )
    accuracy = 100 * training.epoch_state.n_correct.item() / n_images
    row = {"epoch": epoch, "lr": rate, "loss": mean_loss, accuracy_name(config): accuracy}
    return row if training.ranks.world == 1 else row | {PROCESSES: training.ranks.world}


def accuracy_name(config: TrainConfig) -> str:
    """What the accuracy on an epoch's training images is called, which counts mixed ones by shares."""
    return "mixed_train_accuracy" if config.augmentation.mixes else "train_accuracy"
