"""Checkpoints, kept epochs and states of runs: what cannot be used is refused in the same words for all."""

import zipfile
from pathlib import Path

import pytest
import torch

from extract import checkpoint
from extract.torch_files import Kind, read_torch_file
from extract.training import unfinished_epoch
from finetune.training import resume
from store.errors import CheckpointError, UserError

KINDS = [checkpoint.KIND, unfinished_epoch.KIND, resume.KIND]


def whole(kind: Kind) -> dict:
    return kind.marks | {name: torch.arange(300) for name in kind.needs}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.format)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def path(kind: Kind, tmp_path: Path) -> Path:
    """A whole file of the kind."""
    torch.save(whole(kind), tmp_path / "file.pt")
    return tmp_path / "file.pt"


def refused(path: Path, kind: Kind, says: str) -> None:
    with pytest.raises(UserError) as caught:
        read_torch_file(path, kind)
    assert type(caught.value) is (CheckpointError if kind is checkpoint.KIND else UserError)
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert says in told
    assert kind.what in told
    assert told.endswith(kind.advice)
    assert "\n" not in told


def test_a_whole_file_is_read_whichever_version_does_not_say_itself(kind: Kind, path: Path) -> None:
    assert read_torch_file(path, kind).keys() == whole(kind).keys()
    content = whole(kind)
    del content["format_version"]  # as of epochs and runs that version 0.1 left
    torch.save(content, path)
    assert read_torch_file(path, kind).keys() == content.keys()


@pytest.mark.parametrize("share", [0.002, 0.3, 0.7, 0.999])
def test_cut_short_at_any_place(kind: Kind, path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, kind, "that can be read safely (cut short)")


def test_what_torch_did_not_write(kind: Kind, path: Path) -> None:
    for content in (b"", b"epoch,loss\n1,2.3\n", bytes(range(256))):
        path.write_bytes(content)
        refused(path, kind, "that can be read safely (no file that torch wrote, or damaged, or with code")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("notes.txt", "ours")
    refused(path, kind, "that can be read safely (damaged, or with code in it)")
    path.unlink()
    path.mkdir()
    refused(path, kind, "that can be read safely (it is no file)")


def test_a_file_of_another_kind_or_version_or_incomplete(kind: Kind, path: Path) -> None:
    other = KINDS[KINDS.index(kind) - 1]
    torch.save(whole(other), path)
    refused(path, kind, "of this program (it holds ")
    torch.save([1, 2], path)
    refused(path, kind, "of this program (it holds list, …)")
    torch.save(whole(kind) | {"format_version": 2}, path)
    refused(path, kind, ", of version 2; this program reads 1; ")
    content = whole(kind)
    del content["state"]
    torch.save(content, path)
    refused(path, kind, ", but it lacks state; ")
