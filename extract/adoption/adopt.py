"""Phase I from a network that another program trained: a network and images that options describe.

What comes of it is a checkpoint of ours after no epochs, so that all that reads checkpoints takes it.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from extract.adoption.class_lists import class_names_in, unread_lists
from extract.adoption.first_accuracy import FirstAccuracy
from extract.adoption.notes import note_adopted
from extract.adoption.options import takes_classifier
from extract.adoption.seen import SEEN, images_seen
from extract.adoption.whole_weights import load_whole
from extract.checkpoints.checkpoint import Checkpoint, file_digest, with_digest
from extract.checkpoints.restore import Restored
from extract.config import ExtractConfig, NetworkConfig, TrainConfig
from extract.data_notes import note_copies
from extract.dataset import Dataset, check_readable, decoded, list_dataset
from extract.device import Compute
from extract.images.image_set import white_of
from extract.images.preparation import check_preparation
from extract.images.transforms import Transform
from extract.networks.foreign_files import read_content
from extract.networks.found import FoundNetwork
from extract.networks.parts import Network
from extract.networks.registry import build_network, check_loads_again, check_network, preparation
from extract.networks.torchvision_models import REMIX_INPUT
from extract.proof.record import record_images
from extract.training.preparation import transform_for
from store.notes import note

UNKNOWN = ("recipe", "batch_size", "lr", "schedule", "warmup_epochs", "weight_decay", "momentum", "precision")


def adopt(config: ExtractConfig, compute: Compute, progress: Progress) -> Restored:
    """Make network (on the device), images and checkpoint from options; every image is read once.

    With `config.ckpt`, all weights are the file's, the FC layer too unless `config.classifier` says
    otherwise. Without it, `config.network.weights` names those of the backbone. A new FC layer is drawn from
    `config.seed`.

    Raises:
        UserError: a weights file, an image or an option cannot be used, or they do not belong together.
    """
    training = training_options(config)
    content = names = None
    if takes_classifier(config):
        content = read_content(Path(config.ckpt))
        names = class_names_in(content, config.ckpt)
        if names is None and (unread := unread_lists(content)):
            order = config.dataset.class_names or "the data set's own order of classes"
            note(
                f"{config.ckpt}: its {unread[0]} gives no names for outputs 0, 1, 2, …, so it is not used, "
                f"but {order}"
            )
        training = _in_order(training, names)
    listed = list_dataset(training.dataset, progress)
    if training.dataset.class_names is not None and names not in (None, listed.class_names):
        note(f"{config.ckpt}: lists its classes in another order than --class-names, which is the one taken")
    training = replace(training, dataset=listed.config)
    network = _network(training, len(listed.class_names), content, config.ckpt).eval()
    network.to(compute.device, memory_format=compute.memory_format)
    listed = decoded(listed, training.image_size, progress)
    transform = transform_for(training, listed)
    note_adopted(listed, transform, training.network, config)
    first = FirstAccuracy(network, listed, config.seed) if takes_classifier(config) else None
    if first is not None:
        first.tell_early(transform, compute, progress)
    dataset, transform = _read(listed, transform, progress)
    if listed.train.digest is None:  # else they were noted before
        note_copies(dataset)
    if first is not None:
        first.tell(transform, compute, progress)
    checkpoint = adopted_checkpoint(training, network, dataset, transform, config.classifier)
    if n_seen := images_seen(config.network.weights, dataset):
        checkpoint = replace(checkpoint, config=checkpoint.config | {SEEN: n_seen})
    return Restored(checkpoint, network, dataset, transform)


def training_options(config: ExtractConfig) -> TrainConfig:
    """The options of network and images as those of a training, with image size and digest filled in.

    Raises:
        UserError: an option cannot be used.
    """
    network = network_options(config)
    check_network(network)
    training = TrainConfig(
        out="",
        network=network,
        dataset=config.dataset.resolved(),
        image_size=config.image_size or preparation(network).image_size,
        mean=config.mean,
        std=config.std,
        crop=config.crop,
        interpolation=config.interpolation,
        seed=config.seed,
    )
    check_preparation(training)
    return training


def network_options(config: ExtractConfig) -> NetworkConfig:
    """The network, with its file of weights and the digest of that."""
    if config.ckpt is None:
        return with_digest(config.network)
    path = Path(config.ckpt).absolute()
    return replace(config.network, weights=str(path), weights_digest=file_digest(path))


def _in_order(training: TrainConfig, names: list[str] | None) -> TrainConfig:
    """The options with the order of classes that a checkpoint lists, unless the user names one."""
    if names is None or training.dataset.class_names is not None:
        return training
    return replace(training, dataset=replace(training.dataset, class_order=tuple(names)))


def _network(training: TrainConfig, n_classes: int, content: Any, ckpt: str | None) -> Network:
    """The network on the CPU, all of it from `content`, what a file holds, unless that is None."""
    named, size = training.network, training.image_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        bare = named if content is None else replace(named, weights=None, ema=False)
        network = build_network(bare, n_classes, size)
        if content is not None:
            load_whole(network, content, Path(ckpt), named)
            _note_first_step(named.arch, ckpt)
        if isinstance(network, FoundNetwork):
            check_loads_again(network, named, n_classes, size)
    return network


def _note_first_step(arch: str, ckpt: str) -> None:
    """Note what torchvision makes in one way without weights and in another with them, and no file tells."""
    if arch in REMIX_INPUT:
        note(
            f"{ckpt}: {arch} is taken to be made with transform_input=True, as torchvision makes it with "
            "pre-trained weights; for one made without, name a function of yours that makes it"
        )


def _read(dataset: Dataset, transform: Transform, progress: Progress) -> tuple[Dataset, Transform]:
    """The data set with digests and record of all images, which are read once, and the transform for them."""
    dataset = check_readable(dataset, progress)
    transform = replace(transform, white=white_of(dataset.splits))
    return replace(dataset, record=record_images(dataset.splits, dataset.per_class)), transform


def adopted_checkpoint(
    training: TrainConfig,
    network: Network,
    dataset: Dataset,
    transform: Transform,
    classifier: str | None = None,
) -> Checkpoint:
    """The checkpoint of a network after no epochs of ours.

    Args:
        training: the options, as of `training_options`, with the data set as listed.
        network: with its weights.
        dataset, transform: with every image read.
        classifier: where the FC layer comes from; None for the file.
    """
    config = asdict(training) | dict.fromkeys(UNKNOWN)
    return Checkpoint(
        network=asdict(training.network),
        dataset=asdict(dataset.config),
        transform=transform.saved(),
        class_names=dataset.class_names,
        class_counts=dataset.class_counts.tolist(),
        fingerprint=dataset.fingerprint,
        state={name: tensor.detach().cpu() for name, tensor in network.state_dict().items()},
        epoch=0,
        config=config | {"epochs": 0, "classifier": classifier or "checkpoint"},
        images=dataset.record,
        source_fingerprint=dataset.source_fingerprint,
    )
