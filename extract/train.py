"""Phase I: all classes, all layers (paper, sec. 4.1), resumable at every epoch."""

import math
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.progress import Progress

from analysis.accuracy import balanced_accuracy
from extract.checkpoints.checkpoint import Checkpoint, save_checkpoint, with_digest
from extract.config import TrainConfig
from extract.data_notes import note_data
from extract.dataset import Dataset, check_readable, decoded, list_dataset
from extract.device import Compute, keep_freed_memory, make_deterministic, use_device
from extract.images.batches import training_batches
from extract.images.image_set import white_of
from extract.images.resident import resident
from extract.images.transforms import Transform
from extract.images.workers import keep_workers
from extract.inference.passes import predict
from extract.networks.registry import check_network, preparation
from extract.proof.identity import bound_to
from extract.proof.record import record_images
from extract.training.batch import Batch
from extract.training.first_step import check_no_lone_image
from extract.training.interrupted.resume import earlier_run, in_words, with_found
from extract.training.interrupted.unfinished_epoch import EpochState, forget_epoch, save_epoch
from extract.training.interrupted.whole_steps import WholeSteps
from extract.training.layer_draws import layer_draws
from extract.training.losses.objective import objective_of_epoch
from extract.training.losses.sla import split_turned
from extract.training.mirror import note_mirrored_pairs
from extract.training.mixing import Mixing
from extract.training.optimisation.accumulation import Accumulation
from extract.training.optimisation.schedule import learning_rate, note_rates
from extract.training.preparation import note_statistics, transform_for
from extract.training.profile import EVALUATING, WRITING, Profile
from extract.training.samplers import sampled_order, seen
from extract.training.start import go_on_within_epoch, start_training
from extract.training.step import Training, accuracy_name, epoch_row, take_step
from extract.training.together.joining import joined, own_device
from extract.training.together.ranks import Ranks
from extract.training.together.shares import check_last_batch, check_shares, options_in_lines
from store.errors import Interrupted, UserError
from store.notes import note
from store.storage.atomic import write_json, write_text
from store.storage.lock import sole_writer

SAVE_EVERY = 120.0  # seconds between saved states within an epoch, from which a killed run can resume
MEET_EVERY = 20  # steps on GPUs after which processes ask each other about Ctrl-C, which waits for the GPU


def train(config: TrainConfig, progress: Progress) -> Checkpoint:
    """Train a network; write `checkpoint.pt`, `metrics.csv` and `config.json` to `config.out`.

    The checkpoint is written before the first epoch and after each one; the state within an epoch is saved on
    Ctrl-C and every few minutes. So a run that is interrupted and resumed ends in the same weights as an
    uninterrupted one. Under `torchrun` each process computes its share of every batch, and the first writes.

    Raises:
        UserError: the data, the options or the folder cannot be used.
        Interrupted: Ctrl-C, once there is a checkpoint.
    """
    config = config.resolved()
    # Weights that a resumed run began with are in its checkpoint, and their file may be gone.
    check_network(replace(config.network, weights=None, ema=False) if config.resume else config.network)
    if config.image_size is None:
        config = replace(config, image_size=preparation(config.network).image_size).resolved()
    keep_freed_memory()
    with joined(config.device) as ranks:
        ranks.check_same("options", options_in_lines(config))
        check_shares(config, ranks.world)
        if ranks.is_first:
            with sole_writer(Path(config.out), "training run"):
                return _train(config, progress, ranks)
        return _train(config, Progress(disable=True), ranks)


def _train(config: TrainConfig, progress: Progress, ranks: Ranks) -> Checkpoint:
    previous = earlier_run(config)
    ranks.check_same("run to resume", in_words(previous))
    if previous and previous.optimizer is None:
        if ranks.is_first:
            forget_epoch(Path(config.out))
        note(f"{config.out}: was already finished (epoch {previous.epoch}); nothing to do")
        return previous
    device = use_device(own_device(config.device))
    compute = Compute(device, config.precision, config.batch_size, config.workers)
    make_deterministic()
    transform = Transform(**previous.transform) if previous else None
    dataset = _dataset(config, previous, transform, progress, ranks)
    config = replace(config, dataset=dataset.config, network=with_digest(config.network))
    transform = transform or transform_for(config, dataset)
    training = start_training(config, dataset.class_counts, previous, compute, ranks)
    check_last_batch(config, len(dataset.train), ranks.world)
    check_no_lone_image(training.network, config, len(dataset.train), compute, ranks)
    if previous is None:
        dataset = check_readable(dataset, progress)
        note_data(dataset)
        note_statistics(config, transform)
        transform = replace(transform, white=white_of(dataset.splits))
    dataset = replace(dataset, record=record_images(dataset.splits, dataset.per_class))
    path = Path(config.out) / "checkpoint.pt"
    before = _identity(path)
    ranks.wait()  # until all have read what the first replaces
    try:
        if previous is None and ranks.is_first:
            forget_epoch(path.parent)  # of a run that this one replaces
        _save(training, config, dataset, transform)
        if ranks.is_first:  # after the checkpoint, which marks the folder as ours
            write_json(path.with_name("config.json"), asdict(config))
        with WholeSteps(ranks) as whole_steps, keep_workers():
            return _train_epochs(training, config, dataset, transform, compute, progress, whole_steps)
    except (KeyboardInterrupt, UserError) as error:
        started = previous is not None or _identity(path) != before
        if started:
            with suppress(KeyboardInterrupt):
                _save_epoch(training, config)
        raise (Interrupted() if started and isinstance(error, KeyboardInterrupt) else error) from error


def _dataset(
    config: TrainConfig,
    previous: Checkpoint | None,
    transform: Transform | None,
    progress: Progress,
    ranks: Ranks,
) -> Dataset:
    """The images; those of an earlier run, read as then, if it is resumed."""
    described = config.dataset if previous is None else with_found(config.dataset, previous)
    dataset = list_dataset(described, progress, listed_before=previous is not None)
    if previous:
        dataset = bound_to(dataset, previous, config.out)
    ranks.check_same("images", f"a data set of fingerprint {dataset.fingerprint}")
    return decoded(dataset, config.image_size, progress, reading=transform.reading if transform else None)


def _identity(path: Path) -> tuple[int, int] | None:
    """Inode and time of a file, which change when it is rewritten."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None


def _train_epochs(
    training: Training,
    config: TrainConfig,
    dataset: Dataset,
    transform: Transform,
    compute: Compute,
    progress: Progress,
    whole_steps: WholeSteps,
) -> Checkpoint:
    go_on_within_epoch(training, Path(config.out), compute.device)
    steps = math.ceil(len(dataset.train) / config.batch_size)
    note_rates(config, len(dataset.train))
    grouped = Accumulation(config.optimisation.accumulate, config.batch_size, len(dataset.train))
    n_taken = training.epoch * steps + training.epoch_state.step
    meet_every = 1 if compute.device.type == "cpu" else MEET_EVERY
    task = progress.add_task("training", total=config.epochs * steps, completed=n_taken, status="")
    images_of_training = resident(dataset.train, compute.device)
    mixing = Mixing(config.augmentation, dataset.class_counts, config.seed)
    while training.epoch < config.epochs:
        epoch_state = training.epoch_state
        started, profile = time.perf_counter() - epoch_state.seconds, Profile(dict(epoch_state.spent))
        # Each epoch has its own generator, so a resumed run draws the same numbers as an uninterrupted one.
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + training.epoch)
        drawn = sampled_order(config, dataset.train.label, training.epoch, generator)
        taken, saved = (epoch_state.step, epoch_state.generator), time.perf_counter()
        network, counts = training.network.train(), dataset.class_counts
        training.objective = objective_of_epoch(config, counts, training.epoch, network.classifier)
        epoch = (images_of_training, transform, generator, compute, taken, drawn, training.ranks)
        for images, labels in profile.awaited(training_batches(*epoch)):
            done = training.epoch + grouped.first_of(epoch_state.step) / steps
            rate = learning_rate(config, done, len(dataset.train))
            place = (config.seed, training.epoch, epoch_state.step)
            draws = layer_draws(*place, compute.device, training.ranks.rank)
            with whole_steps.step(), draws:
                turn = grouped.turn(epoch_state.step)
                batch = mixing.mixed(Batch(images, labels), training.epoch, epoch_state.step)
                take_step(training, batch, rate, done / config.epochs, compute, turn)
                epoch_state.generator = generator.get_state()
                epoch_state.take_time(time.perf_counter() - started, profile)
            progress.advance(task)
            if training.is_resumable and epoch_state.step % meet_every == 0:
                whole_steps.meet()
            if time.perf_counter() - saved > SAVE_EVERY and training.is_resumable:
                with profile.during(WRITING):
                    _save_epoch(training, config)
                saved = time.perf_counter()
        row = epoch_row(training, config, len(dataset.train)) | ({} if drawn is None else seen(drawn))
        measured = row["epoch"] % config.eval_every == 0 or row["epoch"] == config.epochs
        if measured and training.ranks.is_first:
            with profile.during(EVALUATING):
                predicted, accuracies = _evaluated(training, dataset, transform, compute, progress)
            row |= accuracies
        row |= {"seconds": time.perf_counter() - started} | profile.columns()
        with whole_steps.step():
            checkpoint = _end_epoch(training, config, dataset, transform, row)
        progress.update(task, status=_in_words(row, config, profile))
    if transform.flip and training.ranks.is_first:
        note_mirrored_pairs(dataset, predicted, transform, compute)
    return checkpoint


def _in_words(row: dict[str, Any], config: TrainConfig, profile: Profile) -> str:
    """A finished epoch, for the progress bar."""
    name = accuracy_name(config)
    accuracy = f"{name.replace('_', ' ')} {row[name]:.1f}"
    done = f"epoch {row['epoch']} of {config.epochs}  loss {row['loss']:.3f}"
    return f"{done}  {accuracy}  {profile.told(row['seconds'])}"


def _end_epoch(
    training: Training, config: TrainConfig, dataset: Dataset, transform: Transform, row: dict[str, Any]
) -> Checkpoint:
    """Save the checkpoint of an epoch, which the next one's clock counts."""
    began = time.perf_counter()
    training.history.append(row)
    training.epoch += 1
    checkpoint = _save(training, config, dataset, transform)
    device, written = training.epoch_state.loss.device, time.perf_counter() - began
    training.epoch_state = EpochState.empty(training.epoch, device, written)
    if training.ranks.is_first:
        forget_epoch(Path(config.out))
    return checkpoint


def _evaluated(
    training: Training, dataset: Dataset, transform: Transform, compute: Compute, progress: Progress
) -> tuple[np.ndarray, dict[str, float]]:
    """Predictions on the validation split, else the test split, and their accuracies by name."""
    name, held_out = ("test", dataset.test) if dataset.val is None else ("val", dataset.val)
    held_out = resident(held_out, compute.device)
    with training.optimizer.evaluated():
        predicted = predict(training.network, held_out, transform, compute, progress)
    accuracy = 100 * float((predicted == held_out.label).mean())
    balanced = balanced_accuracy(held_out.label, predicted)
    return predicted, {f"{name}_accuracy": accuracy, f"{name}_balanced_accuracy": balanced}


def _save_epoch(training: Training, config: TrainConfig) -> None:
    """Save the state within the current epoch, if it can be resumed."""
    if training.is_resumable and training.ranks.is_first:
        save_epoch(Path(config.out), training.optimizer, training.epoch_state, training.history)


def _save(training: Training, config: TrainConfig, dataset: Dataset, transform: Transform) -> Checkpoint:
    out = Path(config.out)
    unfinished = training.epoch < config.epochs
    state, turned = split_turned(training.optimizer.kept_weights())
    checkpoint = Checkpoint(
        network=asdict(config.network),
        dataset=asdict(dataset.config),
        transform=transform.saved(),
        class_names=dataset.class_names,
        class_counts=dataset.class_counts.tolist(),
        fingerprint=dataset.fingerprint,
        state=state,
        turned=turned,
        epoch=training.epoch,
        config=asdict(config),
        optimizer=training.optimizer.state_dict() if unfinished else None,
        history=training.history,
        images=dataset.record,
        source_fingerprint=dataset.source_fingerprint,
    )
    if not training.ranks.is_first:
        return checkpoint
    if training.history:
        write_text(out / "metrics.csv", pd.DataFrame(training.history).to_csv(index=False))
    else:
        (out / "metrics.csv").unlink(missing_ok=True)  # of the run that this one replaces
    save_checkpoint(checkpoint, out / "checkpoint.pt")  # last: a resumed run starts from it
    return checkpoint
