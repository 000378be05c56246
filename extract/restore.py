"""A checkpoint's network and images, as they were in training."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.progress import Progress

from extract.checkpoint import Checkpoint, CheckpointError, described, load_checkpoint
from extract.config import DatasetConfig, NetworkConfig
from extract.dataset import Dataset, decoded, list_dataset
from extract.images.transforms import Transform
from extract.networks.parts import Network
from extract.networks.registry import build_network
from extract.proof.identity import bound_to
from extract.sources.content import lies_turned
from extract.sources.registry import find_source
from extract.training.unfinished import note_unfinished
from store.errors import UserError
from store.notes import note
from store.schema import SPLITS


@dataclass(frozen=True)
class Restored:
    """A trained network with the data it was trained on."""

    checkpoint: Checkpoint
    network: Network
    dataset: Dataset
    transform: Transform


def restore(ckpt: Path, root: str | None, progress: Progress, only: Collection[str] = SPLITS) -> Restored:
    """Make network and data anew from a checkpoint's description.

    Args:
        ckpt: the checkpoint file.
        root: where the images lie now, if not where they lay.
        progress: shows the reading of images.
        only: splits of which images may be read.

    Raises:
        UserError: the checkpoint, the images, or the pair of them cannot be used.
    """
    listed = restore_listed(ckpt, root, progress)
    note_unfinished(listed.checkpoint, ckpt)
    size, reading = listed.transform.image_size, listed.transform.reading
    return replace(listed, dataset=decoded(listed.dataset, size, progress, only, reading))


def restore_listed(ckpt: Path, root: str | None, progress: Progress) -> Restored:
    """As `restore`, but images that are files stay paths, of whatever size."""
    checkpoint = load_checkpoint(ckpt)
    network = restore_network(checkpoint, ckpt)
    source = described(DatasetConfig, checkpoint.dataset, ckpt)
    if root is not None:
        if "root" not in find_source(source.source).options:
            raise UserError(
                f"--root {root}: {ckpt} was trained on {source.source}, which is embedded and has no folder; "
                "leave it out"
            )
        source = replace(source, root=root)
    transform = described(Transform, checkpoint.transform, ckpt)
    dataset = bound_to(list_dataset(source, progress, looked=True), checkpoint, ckpt)
    if not transform.upright and _any_turned(dataset):
        note(
            f"{ckpt}: was trained on photographs as they lie in their files, and sees them so; train anew to "
            "have them turned as EXIF says"
        )
    return Restored(checkpoint, network, dataset, transform)


def _any_turned(dataset: Dataset) -> bool:
    """Whether a photograph among a hundred or so, spread over the training images, is to be turned."""
    files = [] if dataset.train.in_memory else dataset.train.images
    return any(lies_turned(path) for path in files[:: max(1, len(files) // 100)])


def restore_network(checkpoint: Checkpoint, path: Path) -> Network:
    """The network of a checkpoint, in evaluation mode; `path` is for the error message.

    Raises:
        CheckpointError: the weights are not those of the architecture that the checkpoint names.
    """
    config = described(NetworkConfig, checkpoint.network, path)
    # The weights come from the file: none are drawn (the meta device holds no values) or fetched.
    with torch.device("meta"):
        network = build_network(replace(config, weights=None), len(checkpoint.class_names))
    try:
        network.load_state_dict(checkpoint.state, assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise CheckpointError(
            f"{path}: holds weights of another network than {config.arch} for "
            f"{len(checkpoint.class_names)} classes ({first[0].strip()[:150]}); train again"
        ) from error
    return network.eval()
