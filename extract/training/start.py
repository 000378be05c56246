"""Network, optimiser, loss and state that a training begins with."""

from pathlib import Path

import numpy as np
import torch

from extract.checkpoints.checkpoint import Checkpoint
from extract.config import TrainConfig
from extract.device import Compute
from extract.networks.found import FoundNetwork
from extract.networks.registry import build_network, check_loads_again, network_to_load
from extract.training.first_step import check_trains
from extract.training.interrupted.unfinished_epoch import EpochState, read_epoch, restore_epoch
from extract.training.layout import layout_of
from extract.training.losses.objective import objective_of_epoch
from extract.training.losses.sla import add_turned
from extract.training.optimisation.optimizer import Optimizer
from extract.training.step import Training
from extract.training.together.ranks import Ranks
from extract.training.together.statistics import with_shared_statistics


def start_training(
    config: TrainConfig, class_counts: np.ndarray, previous: Checkpoint | None, compute: Compute, ranks: Ranks
) -> Training:
    """A training before its first step, or as the checkpoint of an earlier run has it.

    Args:
        config: as resolved.
        class_counts: (K,) training images of each class.
        previous: the checkpoint of the run to resume; None for a new one.
        compute: device and precision.
        ranks: the processes that train together.

    Raises:
        UserError: the network cannot be trained or resumed.
    """
    n_classes = len(class_counts)
    with torch.random.fork_rng(devices=[]):  # the network is built on the CPU
        torch.manual_seed(config.seed)
        make = network_to_load if previous else build_network  # weights to begin with may be gone by now
        network = make(config.network, n_classes, config.image_size)
        if previous is None and isinstance(network, FoundNetwork):
            again = check_loads_again(network, config.network, n_classes, config.image_size)
            check_trains(again, config.network.arch, config.image_size, compute)
            del again
        if config.objective.loss == "sla":
            add_turned(network.classifier)
    if previous:
        network.load_state_dict(previous.state | (previous.turned or {}), assign=True)
    layout = layout_of(network, compute)
    network.to(compute.device, memory_format=layout)
    network = with_shared_statistics(network, ranks, compute.device)
    optimizer = Optimizer(network, config)
    if previous:
        optimizer.load_state_dict(previous.optimizer)
    objective = objective_of_epoch(config, class_counts, 0, network.classifier)
    epoch, history = (previous.epoch, list(previous.history)) if previous else (0, [])
    epoch_state = EpochState.empty(epoch, compute.device)
    training = Training(network, optimizer, objective, epoch, history, epoch_state, ranks, layout)
    if previous:
        training.unfinished = read_epoch(Path(config.out), history)
    else:
        objective.constrain()
    return training


def go_on_within_epoch(training: Training, out: Path, device: torch.device) -> None:
    """Bring a resumed training to where the earlier run stopped within an epoch, if it did.

    Not before the checkpoint is written again, which is that of the whole epoch before.

    Args:
        training: of `start_training`.
        out: folder of the run.
        device: of the network.

    Raises:
        UserError: the state is not that of this network, or processes have different ones.
    """
    content, training.unfinished = training.unfinished, None
    training.ranks.check_same("interrupted epoch", f"{content['step'] if content else 0} of its batches")
    if content:
        training.epoch_state = restore_epoch(content, out, training.optimizer, device)
        training.ranks.share_gradients(training.network)
