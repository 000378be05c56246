"""Checkpoints: the network, all that is needed to make it and its data again, and the training state.

They are plain tensors and values, loaded with `weights_only=True`, so that opening one never runs code.
"""

import hashlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from extract.config import DatasetConfig
from extract.sources.presence import check_checkpoint_exists
from extract.torch_files import Kind, read_torch_file
from extract.training.how_far import FORMAT, FORMAT_VERSION
from store.errors import CheckpointError
from store.storage.atomic import whole_file

BEFORE_IT_WAS_SAID = {  # in descriptions that do not say it yet
    DatasetConfig: {"subfolders": False, "tail_order": "class index"}
}


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        network: fields of NetworkConfig.
        dataset: fields of DatasetConfig.
        transform: fields of Transform.
        class_names: K names.
        class_counts: K training images of each class.
        fingerprint: of the data set as it is listed, to notice that it changed.
        state: state dict of the Network.
        epoch: finished epochs of Phase I.
        config: fields of the command's config, as resolved.
        optimizer: state dict of the optimiser while training can go on, else None.
        history: a row of metrics for each finished epoch.
        finetuned: whether Phase II replaced the FC layer.
        images: names and digests of the images (`extract.proof.record`); None in files that lack them.
    """

    network: dict[str, Any]
    dataset: dict[str, Any]
    transform: dict[str, Any]
    class_names: list[str]
    class_counts: list[int]
    fingerprint: str
    state: dict[str, torch.Tensor]
    epoch: int
    config: dict[str, Any]
    optimizer: dict[str, Any] | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    finetuned: bool = False
    images: dict[str, dict[str, torch.Tensor]] | None = None


LATER_FIELDS = {"images"}  # files of version 0.1 are without them
KIND = Kind(
    "a checkpoint",
    FORMAT,
    "expected a checkpoint.pt written by `train` or `finetune` of this version",
    [f.name for f in fields(Checkpoint) if f.name not in LATER_FIELDS],
    FORMAT_VERSION,
    CheckpointError,
)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint, whole or not at all."""
    # Not `asdict`, which would copy every tensor.
    content = {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)}
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        torch.save(KIND.marks | content, file)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU without running any code in it.

    Raises:
        CheckpointError: no such file, not a checkpoint, another program's or a newer version's, or
            weights that are not finite.
    """
    check_checkpoint_exists(path)
    content = read_torch_file(path, KIND)
    checkpoint = Checkpoint(**{f.name: content[f.name] for f in fields(Checkpoint) if f.name in content})
    _check_sound(checkpoint, path)
    for name, tensor in checkpoint.state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(
                f"{path}: {name} holds NaN or infinite weights; train again, with a lower --lr perhaps"
            )
    return checkpoint


def _check_sound(checkpoint: Checkpoint, path: Path) -> None:
    kinds = {"class_names": list, "class_counts": list, "state": dict, "epoch": int, "config": dict}
    for name, kind in kinds.items():
        found = type(getattr(checkpoint, name))
        if found is not kind and not issubclass(found, kind):
            raise CheckpointError(
                f"{path}: its {name} is a {found.__name__}, not a {kind.__name__}; train again"
            )
    if not len(checkpoint.class_names) == len(checkpoint.class_counts) >= 2:
        raise CheckpointError(
            f"{path}: has {len(checkpoint.class_names)} class names and {len(checkpoint.class_counts)} "
            "counts, expected two at least of each; train again"
        )
    for name, value in checkpoint.state.items():
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{path}: {name} of its state is no tensor; train again")


def described(kind: type, content: Any, path: Path) -> Any:
    """One of the descriptions in a checkpoint as the dataclass that it is.

    Raises:
        CheckpointError: it is not.
    """
    try:
        return kind(**BEFORE_IT_WAS_SAID.get(kind, {}) | content)
    except TypeError as error:
        raise CheckpointError(f"{path}: its {kind.__name__} is damaged ({error}); train again") from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
