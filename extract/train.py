"""Phase I: all classes, all layers (paper, sec. 4.1), resumable at every epoch."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.progress import Progress, TaskID
from torch.nn.functional import cross_entropy

from analysis.accuracy import balanced_accuracy
from extract.batches import Batch, training_batches
from extract.checkpoint import Checkpoint, save_checkpoint
from extract.config import TrainConfig
from extract.data_notes import note_empty_classes
from extract.dataset import Dataset, decoded, list_dataset, refuse_unreadable
from extract.device import Compute, make_deterministic, resolve_device, use_device
from extract.identity import bound_to
from extract.images import white_of
from extract.inference import predict
from extract.networks import Network, build_network, check_network, default_image_size
from extract.recipe import learning_rate
from extract.record import record_images
from extract.resume import earlier_run, with_found
from extract.transforms import IMAGENET_MEAN, IMAGENET_STD, Transform, channel_statistics
from store.atomic import write_json, write_text
from store.errors import Interrupted, UserError
from store.lock import sole_writer
from store.notes import note


@dataclass
class Training:
    """Everything that changes from epoch to epoch."""

    network: Network
    optimizer: torch.optim.SGD
    epoch: int
    history: list[dict[str, Any]]


def train(config: TrainConfig, progress: Progress) -> Checkpoint:
    """Train a network; keep `checkpoint.pt`, `metrics.csv` and `config.json` in `config.out`.

    The checkpoint is written before the first epoch and after each one, so that an interrupted run goes
    on, with `resume`, to the same weights as an uninterrupted one.

    Raises:
        UserError: whatever is wrong with the data, the options or the folder.
        Interrupted: Ctrl-C, once there is a checkpoint.
    """
    config = config.resolved()
    check_network(config.network)
    if config.image_size is None:
        config = replace(config, image_size=default_image_size(config.network.arch))
    with sole_writer(Path(config.out), "training run"):
        return _train(config, progress)


def _train(config: TrainConfig, progress: Progress) -> Checkpoint:
    previous = earlier_run(config)
    if previous and previous.optimizer is None:
        note(f"{config.out}: was finished already (epoch {previous.epoch}), so nothing was left to do")
        return previous
    device = use_device(resolve_device(config.device))
    compute = Compute(device, config.precision, config.batch_size, config.workers)
    make_deterministic()
    described = config.dataset if previous is None else with_found(config.dataset, previous)
    dataset = list_dataset(described, progress)
    if previous:
        dataset = bound_to(dataset, previous, config.out)
    transform = Transform(**previous.transform) if previous else None
    dataset = decoded(dataset, config.image_size, progress, reading=transform.reading if transform else None)
    config = replace(config, dataset=dataset.config)
    transform = transform or transform_for(config, dataset)
    training = _begin(config, len(dataset.class_names), previous, compute)
    _refuse_lone_image(training.network, config, len(dataset.train), compute)
    if previous is None:
        dataset = refuse_unreadable(dataset, progress)
        note_empty_classes(dataset)
        transform = replace(transform, white=white_of(dataset.splits))
    dataset = replace(dataset, record=record_images(dataset.splits))
    path = Path(config.out) / "checkpoint.pt"
    before = _identity(path)
    try:
        _keep(training, config, dataset, transform)
        # After it: a folder is known by its checkpoint.
        write_json(path.with_name("config.json"), asdict(config))
        return _train_epochs(training, config, dataset, transform, compute, progress)
    except KeyboardInterrupt as error:
        raise (Interrupted() if previous or _identity(path) != before else error) from error


def _identity(path: Path) -> tuple[int, int] | None:
    """Another one for every file that was written to a path."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None


def _train_epochs(
    training: Training,
    config: TrainConfig,
    dataset: Dataset,
    transform: Transform,
    compute: Compute,
    progress: Progress,
) -> Checkpoint:
    steps = math.ceil(len(dataset.train) / config.batch_size)
    task = progress.add_task(
        "training", total=config.epochs * steps, completed=training.epoch * steps, status=""
    )
    while training.epoch < config.epochs:
        started = time.perf_counter()
        # Each epoch has a generator of its own, so a resumed run draws what an uninterrupted one does.
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + training.epoch)
        batches = training_batches(dataset.train, transform, generator, compute)
        batches = _counted(batches, progress, task)
        row = _epoch(training, batches, config, len(dataset.train), compute)
        if training.epoch % config.eval_every == 0 or training.epoch == config.epochs:
            name, held_out = ("test", dataset.test) if dataset.val is None else ("val", dataset.val)
            predicted = predict(training.network, held_out, transform, compute, progress)
            row[f"{name}_accuracy"] = 100 * float((predicted == held_out.label).mean())
            row[f"{name}_balanced_accuracy"] = balanced_accuracy(held_out.label, predicted)
        training.history.append(row | {"seconds": time.perf_counter() - started})
        checkpoint = _keep(training, config, dataset, transform)
        status = f"loss {row['loss']:.3f}  accuracy {row['train_accuracy']:.1f}"
        progress.update(task, status=f"epoch {training.epoch} of {config.epochs}  {status}")
    return checkpoint


def _counted(batches: Iterator[Batch], progress: Progress, task: TaskID) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        progress.advance(task)


def _epoch(
    training: Training,
    batches: Iterator[Batch],
    config: TrainConfig,
    n_images: int,
    compute: Compute,
) -> dict[str, Any]:
    network, optimizer = training.network.train(), training.optimizer
    steps = math.ceil(n_images / config.batch_size)
    total_loss = torch.zeros((), device=compute.device)
    n_correct = torch.zeros((), device=compute.device)
    for step, (images, labels) in enumerate(batches):
        optimizer.param_groups[0]["lr"] = learning_rate(config, training.epoch + step / steps)
        with compute.autocast():
            logits = network(images.contiguous(memory_format=compute.memory_format))
        loss = cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total_loss += loss.detach() * len(labels)
        n_correct += (logits.argmax(dim=1) == labels).sum()
    mean_loss = total_loss.item() / n_images
    finite = all(parameter.isfinite().all() for parameter in network.parameters())
    if not (finite and math.isfinite(mean_loss)):  # the last step's damage shows in the weights alone
        what = "weights became infinite or NaN" if math.isfinite(mean_loss) else f"loss became {mean_loss}"
        raise UserError(
            f"{config.out}: the {what} in epoch {training.epoch + 1} at lr "
            f"{optimizer.param_groups[0]['lr']:g}; start anew (--overwrite) with a lower --lr or more "
            "--warmup-epochs"
        )
    training.epoch += 1
    return {
        "epoch": training.epoch,
        "lr": optimizer.param_groups[0]["lr"],
        "loss": mean_loss,
        "train_accuracy": 100 * n_correct.item() / n_images,
    }


def transform_for(config: TrainConfig, dataset: Dataset) -> Transform:
    """How a network that is yet to be trained will see its images.

    Raises:
        UserError: an image size that images in memory do not have.
    """
    size = config.image_size
    if dataset.train.in_memory and dataset.train.images.shape[-1] != size:
        native = dataset.train.images.shape[-1]
        raise UserError(
            f"--image-size {size}: {config.dataset.dataset} images are {native}×{native}, which suits the "
            "networks with a CIFAR stem (resnet32, resnet18-cifar, …)"
        )
    pretrained = config.network.weights is not None
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if pretrained else channel_statistics(dataset.train)
    return Transform(size, mean, std, flip=config.dataset.dataset != "digits", upright=True, white={})


def _begin(config: TrainConfig, n_classes: int, previous: Checkpoint | None, compute: Compute) -> Training:
    with torch.random.fork_rng(devices=[]):  # the network is made on the CPU
        torch.manual_seed(config.seed)
        network = build_network(config.network, n_classes)
    if previous:
        network.load_state_dict(previous.state)
    network.to(compute.device, memory_format=compute.memory_format)
    optimizer = torch.optim.SGD(
        network.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay
    )
    if previous:
        optimizer.load_state_dict(previous.optimizer)
    return Training(
        network,
        optimizer,
        previous.epoch if previous else 0,
        list(previous.history) if previous else [],
    )


@torch.inference_mode()
def _refuse_lone_image(network: Network, config: TrainConfig, n_images: int, compute: Compute) -> None:
    """Batch normalisation finds no variance in a batch of one image whose maps are 1×1."""
    if n_images % config.batch_size != 1 and min(n_images, config.batch_size) > 1:
        return
    side = config.image_size
    maps = network.eval().features(torch.zeros(1, 3, side, side, device=compute.device))
    if maps.shape[2:] == (1, 1):
        raise UserError(
            f"--batch-size {config.batch_size}: leaves a batch of one of the {n_images} training images, and "
            f"{config.network.arch} shrinks images of {side} pixels to 1×1, too little for batch "
            "normalisation; choose another --batch-size or a larger --image-size"
        )


def _keep(training: Training, config: TrainConfig, dataset: Dataset, transform: Transform) -> Checkpoint:
    out = Path(config.out)
    going_on = training.epoch < config.epochs
    checkpoint = Checkpoint(
        network=asdict(config.network),
        dataset=asdict(dataset.config),
        transform=asdict(transform),
        class_names=dataset.class_names,
        class_counts=dataset.class_counts.tolist(),
        fingerprint=dataset.fingerprint,
        state={name: tensor.cpu() for name, tensor in training.network.state_dict().items()},
        epoch=training.epoch,
        config=asdict(config),
        optimizer=training.optimizer.state_dict() if going_on else None,
        history=training.history,
        images=dataset.record,
    )
    if training.history:
        write_text(out / "metrics.csv", pd.DataFrame(training.history).to_csv(index=False))
    else:
        (out / "metrics.csv").unlink(missing_ok=True)  # of the run that this one replaces
    save_checkpoint(checkpoint, out / "checkpoint.pt")  # after the metrics: a resumed run mends those
    return checkpoint
