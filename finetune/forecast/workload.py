"""Network and images of a forecast: those of a checkpoint, or those that options describe."""

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress

from extract.checkpoints.checkpoint import Checkpoint
from extract.checkpoints.restore import restore_listed
from extract.config import NetworkConfig, TrainConfig
from extract.dataset import Dataset, list_dataset
from extract.images.transforms import Transform
from extract.networks.parts import Network
from extract.networks.registry import build_network, check_network, preparation
from extract.training.preparation import transform_for
from finetune.forecast.config import ForecastConfig


@dataclass(frozen=True)
class Workload:
    """A network and the images to extract.

    Attributes:
        arch: name of the network.
        weights: its weights, in words.
        trained: whether they are trained, by us or pre-trained.
        network: the network, in evaluation mode, on the CPU.
        dataset: the images; files stay paths.
        transform: preprocessing of the images.
        layers: earlier layers whose maps are stored too.
    """

    arch: str
    weights: str
    trained: bool
    network: Network
    dataset: Dataset
    transform: Transform
    layers: tuple[str, ...] = ()


def find_workload(config: ForecastConfig, progress: Progress) -> Workload:
    """The network and images of a forecast.

    Raises:
        UserError: the checkpoint, the network or the images cannot be used.
    """
    if config.ckpt is not None:
        named = None if config.network.arch == NetworkConfig.arch else config.network.arch
        restored = restore_listed(Path(config.ckpt), config.dataset.root, progress, named)
        weights = _in_words(restored.checkpoint)
        arch = restored.checkpoint.network["arch"]
        return Workload(arch, weights, True, restored.network, restored.dataset, restored.transform)
    check_network(config.network)
    size = config.image_size or preparation(config.network).image_size
    training = TrainConfig(network=config.network, dataset=config.dataset.resolved(), image_size=size)
    dataset = list_dataset(training.dataset, progress)
    transform = transform_for(training, dataset)
    with torch.random.fork_rng(devices=[]):  # the network is made on the CPU
        torch.manual_seed(training.seed)
        network = build_network(config.network, len(dataset.class_names), size)
    weights = config.network.weights
    words = f"pre-trained weights {weights}" if weights else "initial weights"
    return Workload(config.network.arch, words, weights is not None, network.eval(), dataset, transform)


def _in_words(checkpoint: Checkpoint) -> str:
    """The weights of a checkpoint."""
    if checkpoint.adopted:
        return f"with the weights of {Path(checkpoint.network['weights'] or checkpoint.network['arch']).name}"
    return f"trained for {checkpoint.epoch} epochs"
