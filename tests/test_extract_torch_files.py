"""Checkpoints, interrupted epochs and interrupted runs: unusable files get the same errors."""

import zipfile
from pathlib import Path

import pytest
import torch

from extract.checkpoints import checkpoint
from extract.checkpoints.torch_files import TorchFormat, read_torch_file
from extract.training.interrupted import unfinished_epoch
from finetune.training import resume
from store.errors import CheckpointError, UserError

FORMATS = [checkpoint.CHECKPOINT_FORMAT, unfinished_epoch.EPOCH_FORMAT, resume.RUN_FORMAT]


def whole(kind: TorchFormat) -> dict:
    return kind.marks | {name: torch.arange(300) for name in kind.needs}


@pytest.fixture(params=FORMATS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> TorchFormat:
    return request.param


@pytest.fixture
def path(kind: TorchFormat, tmp_path: Path) -> Path:
    """A whole file of the format."""
    torch.save(whole(kind), tmp_path / "file.pt")
    return tmp_path / "file.pt"


def refused(path: Path, kind: TorchFormat, says: str) -> None:
    with pytest.raises(UserError) as caught:
        read_torch_file(path, kind)
    assert type(caught.value) is (CheckpointError if kind is checkpoint.CHECKPOINT_FORMAT else UserError)
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert says in told
    assert kind.what in told
    assert told.removesuffix(kind.foreign).endswith(kind.advice)
    assert "\n" not in told


def test_a_whole_file_is_read_whichever_version_does_not_say_itself(kind: TorchFormat, path: Path) -> None:
    assert read_torch_file(path, kind).keys() == whole(kind).keys()
    content = whole(kind)
    del content["format_version"]  # like epochs and runs of version 0.1
    torch.save(content, path)
    assert read_torch_file(path, kind).keys() == content.keys()


@pytest.mark.parametrize("share", [0.002, 0.3, 0.7, 0.999])
def test_cut_short_at_any_place(kind: TorchFormat, path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, kind, "that can be read safely (truncated)")


def test_what_torch_did_not_write(kind: TorchFormat, path: Path) -> None:
    for content in (b"", b"epoch,loss\n1,2.3\n", bytes(range(256))):
        path.write_bytes(content)
        refused(path, kind, "that can be read safely (not written by torch, or damaged, or with code")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("notes.txt", "ours")
    refused(path, kind, "that can be read safely (damaged, or with code in it)")
    path.unlink()
    path.mkdir()
    refused(path, kind, "that can be read safely (it is not a file)")


def test_a_file_of_another_kind_or_version_or_incomplete(kind: TorchFormat, path: Path) -> None:
    other = FORMATS[FORMATS.index(kind) - 1]
    torch.save(whole(other), path)
    refused(path, kind, "of this program (it holds ")
    torch.save([1, 2], path)
    refused(path, kind, "of this program (it holds list, …)")
    for version in (kind.version + 1, 0, "1"):
        torch.save(whole(kind) | {"format_version": version}, path)
        read = "1" if kind.version == 1 else f"1 to {kind.version}"
        refused(path, kind, f", of version {version}; this program reads {read}; ")
    content = whole(kind)
    del content["state"]
    torch.save(content, path)
    refused(path, kind, ", but it lacks state; ")
