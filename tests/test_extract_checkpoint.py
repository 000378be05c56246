"""Checkpoints: everything is restored, no code runs, and a file is whole or absent."""

import dataclasses
import pickle
from pathlib import Path

import pytest
import torch

from extract.checkpoints.checkpoint import (
    Checkpoint,
    CheckpointError,
    file_digest,
    load_checkpoint,
    save_checkpoint,
)
from extract.config import DatasetConfig, NetworkConfig, TrainConfig
from extract.images.transforms import Transform


def example(**changes) -> Checkpoint:
    """A checkpoint whose every field differs from its default."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([parameter], 0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    network = NetworkConfig("resnet8", width=2)
    dataset = DatasetConfig(
        "imagefolder",
        "/images",
        imbalance_factor=20.0,
        val_per_class=3,
        skip_bad_images=True,
        skipped=("train/a/1.png",),
    )
    checkpoint = Checkpoint(
        network=dataclasses.asdict(network),
        dataset=dataclasses.asdict(dataset),
        transform=dataclasses.asdict(Transform(32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), flip=False)),
        class_names=["ä", "b"],
        class_counts=[5, 2],
        fingerprint="f00d",
        state={
            "w": torch.tensor([1.5, -2.0]),
            "n": torch.tensor(7),
            "b": torch.ones(2, dtype=torch.bfloat16),
        },
        epoch=3,
        config=dataclasses.asdict(TrainConfig(network=network, dataset=dataset)),
        optimizer=optimizer.state_dict(),
        history=[{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "val_accuracy": 50.0}],
    )
    return dataclasses.replace(checkpoint, **changes)


def assert_same(a, b):
    """Equal in type and value, tensors bit by bit."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    else:
        assert a == b


@pytest.mark.parametrize("changes", [{}, {"optimizer": None, "history": []}], ids=["unfinished", "finished"])
def test_every_field_comes_back(tmp_path, changes):
    checkpoint = example(**changes)
    save_checkpoint(checkpoint, tmp_path / "deep" / "checkpoint.pt")
    loaded = load_checkpoint(tmp_path / "deep" / "checkpoint.pt")
    for field in dataclasses.fields(Checkpoint):
        assert_same(getattr(loaded, field.name), getattr(checkpoint, field.name))
    assert DatasetConfig(**loaded.dataset).skipped == ("train/a/1.png",)
    assert Transform(**loaded.transform).mean == (0.1, 0.2, 0.3)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["checkpoint.pt"]


class Touches:
    """Unpickling it with code allowed creates a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, how):
    path, witness = tmp_path / "checkpoint.pt", tmp_path / "was-run"
    if how == "torch":
        save_checkpoint(example(config={"seed": Touches(witness)}), path)
    else:
        path.write_bytes(pickle.dumps(Touches(witness), protocol=2))
    with pytest.raises(CheckpointError, match="not a checkpoint that can be read safely"):
        load_checkpoint(path)
    assert not witness.exists()
    if how == "torch":  # the positive control: with code allowed, it creates the file
        torch.load(path, weights_only=False)
        assert witness.exists()


def test_weights_that_are_not_finite_are_refused(tmp_path):
    for bad in (float("nan"), float("inf")):
        save_checkpoint(example(state={"fc.weight": torch.tensor([1.0, bad])}), tmp_path / "c.pt")
        with pytest.raises(CheckpointError, match=r"c\.pt: fc\.weight holds NaN or infinite weights"):
            load_checkpoint(tmp_path / "c.pt")


def test_an_exception_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(example(), path)
    before = path.read_bytes()
    with pytest.raises(Exception, match="local object"):  # pickle's error for a lambda, in any Python
        save_checkpoint(example(epoch=4, history=[{"loss": lambda: 0}]), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert load_checkpoint(path).epoch == 3


def test_an_interruption_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(example(), path)
    before = path.read_bytes()

    def half_written(content, file):
        file.write(b"PK half a file")
        file.flush()
        assert path.read_bytes() == before  # not even touched while the new one is written
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(example(epoch=4), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_first_file_that_fails_does_not_appear(tmp_path, monkeypatch):
    def no_space(content, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", no_space)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(example(), tmp_path / "checkpoint.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_new_checkpoint_replaces_the_old(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(example(), path)
    digest = file_digest(path)
    save_checkpoint(example(epoch=4), path)
    assert load_checkpoint(path).epoch == 4
    assert file_digest(path) != digest
    assert len(digest) == 64
