"""Checkpoints: a network, what is needed to rebuild it and its data, and the training state.

They hold plain tensors and values, and are loaded with `weights_only=True`, so opening one never runs code.
"""

import hashlib
import io
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch

from extract.checkpoints.torch_files import TorchFormat, read_torch_file
from extract.config import DatasetConfig, NetworkConfig
from extract.heads.in_network import has_further_parts
from extract.networks.registry import is_weights_file
from extract.sources.presence import check_checkpoint_exists
from extract.training.interrupted.how_far import FORMAT, FORMAT_VERSION
from store.errors import CheckpointError
from store.storage.atomic import whole_file

OLD_DEFAULTS = {  # of fields that older descriptions lack
    DatasetConfig: {"subfolders": False, "tail_order": "class index", "split_spellings": False}
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
        fingerprint: of the data set as listed, to notice changes.
        state: state dict of the Network.
        epoch: finished epochs of Phase I.
        config: fields of the command's config, as resolved.
        optimizer: state dict of the optimiser; None once training is finished.
        history: a row of metrics for each finished epoch.
        finetuned: whether Phase II replaced the FC layer.
        images: names and digests of the images (`extract.proof.record`); None in older files.
        fit: how the FC layer was fitted (`extract.classifier`); None if it was not.
        source_fingerprint: of the images that a long-tailed subset was drawn from, the same for its other
            seeds; None without a subset and in older files.
        turned: state of the outputs of turned images, trained with `--loss sla` beside the FC layer, whose
            own outputs need them not; None without.
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
    fit: dict[str, Any] | None = None
    source_fingerprint: str | None = None
    turned: dict[str, torch.Tensor] | None = None

    @property
    def adopted(self) -> bool:
        """Whether another program trained the network, and `extract` took it up."""
        return self.epoch == 0 and self.config.get("epochs") == 0


LATER_FIELDS = {"images", "fit", "source_fingerprint", "turned"}  # files of version 0.1 lack them
CHECKPOINT_FORMAT = TorchFormat(
    "a checkpoint",
    FORMAT,
    "expected a checkpoint.pt written by `train` or `finetune` of this version",
    [f.name for f in fields(Checkpoint) if f.name not in LATER_FIELDS],
    FORMAT_VERSION,
    CheckpointError,
    "; `extract` makes one of another program's weights",
)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint, whole or not at all."""
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        _write(checkpoint, file)


def as_bytes(checkpoint: Checkpoint) -> bytes:
    """The bytes that `save_checkpoint` writes, so that their digest is known before a file is."""
    buffer = io.BytesIO()
    _write(checkpoint, buffer)
    return buffer.getvalue()


def _write(checkpoint: Checkpoint, file: BinaryIO) -> None:
    # Not `asdict`, which would copy every tensor.
    content = {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)}
    for name in ("fit", "source_fingerprint", "turned"):
        if content[name] is None:
            del content[name]
    version = FORMAT_VERSION if has_further_parts(checkpoint.state) else 1
    torch.save(CHECKPOINT_FORMAT.marks | {"format_version": version} | content, file)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU without running any code in it.

    Raises:
        CheckpointError: no such file, not a checkpoint of this program and version, or weights that are not
            finite.
    """
    check_checkpoint_exists(path)
    content = read_torch_file(path, CHECKPOINT_FORMAT)
    checkpoint = Checkpoint(**{f.name: content[f.name] for f in fields(Checkpoint) if f.name in content})
    _check_sound(checkpoint, path)
    for name, tensor in (checkpoint.state | (checkpoint.turned or {})).items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(
                f"{path}: {name} holds NaN or infinite weights; train again, perhaps with a lower --lr"
            )
    return checkpoint


def _check_sound(checkpoint: Checkpoint, path: Path) -> None:
    types = {"class_names": list, "class_counts": list, "state": dict, "epoch": int, "config": dict}
    for name, expected in types.items():
        found = type(getattr(checkpoint, name))
        if found is not expected and not issubclass(found, expected):
            raise CheckpointError(
                f"{path}: its {name} is a {found.__name__}, not a {expected.__name__}; train again"
            )
    if not len(checkpoint.class_names) == len(checkpoint.class_counts) >= 2:
        raise CheckpointError(
            f"{path}: has {len(checkpoint.class_names)} class names and {len(checkpoint.class_counts)} "
            "counts, expected at least two of each; train again"
        )
    for name, value in checkpoint.state.items():
        if not (isinstance(name, str) and isinstance(value, torch.Tensor)):
            raise CheckpointError(f"{path}: {name} of its state is not a tensor; train again")


def described(dataclass_type: type, content: Any, path: Path) -> Any:
    """A description in a checkpoint, as a dataclass.

    Raises:
        CheckpointError: it does not fit the dataclass.
    """
    try:
        return dataclass_type(**OLD_DEFAULTS.get(dataclass_type, {}) | content)
    except TypeError as error:
        raise CheckpointError(
            f"{path}: its {dataclass_type.__name__} is damaged ({error}); train again"
        ) from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def with_digest(network: NetworkConfig) -> NetworkConfig:
    """A network with the digest of the file of weights that it begins with, if there is one."""
    if network.weights_digest is not None or not is_weights_file(network.weights):
        return network
    return replace(network, weights_digest=file_digest(Path(network.weights)))
