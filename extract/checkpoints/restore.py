"""Rebuilding a checkpoint's network and images, as they were in training."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.progress import Progress

from extract.checkpoints.checkpoint import Checkpoint, CheckpointError, described, load_checkpoint
from extract.config import DatasetConfig, NetworkConfig
from extract.dataset import Dataset, decoded, list_dataset
from extract.heads.in_network import head_in
from extract.images.transforms import Transform
from extract.networks.parts import Network
from extract.networks.registry import check_named, network_to_load
from extract.proof.identity import bound_to
from extract.sources.content import lies_turned
from extract.sources.registry import find_source
from extract.training.interrupted.unfinished import note_stopped_early
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


def restore(
    ckpt: Path,
    root: str | None,
    progress: Progress,
    only: Collection[str] = SPLITS,
    arch: str | None = None,
) -> Restored:
    """Rebuild network and data from a checkpoint's description.

    Args:
        ckpt: the checkpoint file.
        root: where the images are now, if they moved.
        progress: shows the reading of images.
        only: splits whose images may be read.

    Raises:
        UserError: the checkpoint or the images cannot be used, or do not belong together.
    """
    listed = restore_listed(ckpt, root, progress, arch)
    note_stopped_early(listed.checkpoint, ckpt)
    size, reading = listed.transform.image_size, listed.transform.reading
    return replace(listed, dataset=decoded(listed.dataset, size, progress, only, reading))


def restore_listed(ckpt: Path, root: str | None, progress: Progress, arch: str | None = None) -> Restored:
    """Like `restore`, but image files of any size stay paths."""
    checkpoint = load_checkpoint(ckpt)
    network = restore_network(checkpoint, ckpt, arch)
    source = described(DatasetConfig, checkpoint.dataset, ckpt)
    if root is not None:
        if "root" not in find_source(source.source).options:
            raise UserError(
                f"--root {root}: {ckpt} was trained on {source.source}, which is embedded and has no folder; "
                "leave it out"
            )
        source = source.moved(root)
    transform = described(Transform, checkpoint.transform, ckpt)
    dataset = bound_to(list_dataset(source, progress, listed_before=True), checkpoint, ckpt)
    note_unturned(transform, [] if dataset.train.in_memory else dataset.train.images, ckpt)
    return Restored(checkpoint, network, dataset, transform)


def note_unturned(transform: Transform, files: Sequence[Path], ckpt: Path) -> None:
    """Note that photographs are read unturned, as a checkpoint of version 0.1 was trained on them.

    Said if that concerns any of about a hundred files, spread over all.
    """
    if transform.upright or not any(map(lies_turned, files[:: max(1, len(files) // 100)])):
        return
    note(
        f"{ckpt}: was trained on photographs that were not turned as EXIF says, and reads them the same "
        "way; train again to have them turned"
    )


def restore_network(checkpoint: Checkpoint, path: Path, arch: str | None = None) -> Network:
    """The network of a checkpoint, in evaluation mode; `path` is for the error message.

    Raises:
        CheckpointError: the weights are not those of the architecture that the checkpoint names.
    """
    config = described(NetworkConfig, checkpoint.network, path)
    check_named(config.arch, arch, path)
    network = network_to_load(config, len(checkpoint.class_names), checkpoint.transform.get("image_size"))
    try:
        _give_head(network, checkpoint)
        network.load_state_dict(checkpoint.state, assign=True)
    except (RuntimeError, ValueError) as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise CheckpointError(
            f"{path}: has the weights of another network than {config.arch} for "
            f"{len(checkpoint.class_names)} classes ({first[0].strip()[:150]}); "
            f"{'run `finetune`' if checkpoint.finetuned else 'train'} again"
        ) from error
    return network.eval()


def _give_head(network: Network, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's head in the place of the FC layer, if it has further parts."""
    head = head_in(checkpoint.state)
    if head is None:
        return
    if head.weight.shape != network.classifier.weight.shape:
        expected, found = (tuple(one.weight.shape) for one in (network.classifier, head))
        raise ValueError(f"its head is for (classes, channels) {found}, the network for {expected}")
    network.classifier = head
