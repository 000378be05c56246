"""Dropout in Phase I: its draws come from the run's seed, and resuming does not change them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bad_input import write_images
from rich.progress import Progress

import extract.train
from extract.config import DatasetConfig, NetworkConfig, TrainConfig
from extract.train import train
from extract.training.layer_draws import layer_draws
from store.errors import Interrupted

pytestmark = pytest.mark.usefixtures("in_tmp_path")
DIGEST = hashlib.sha256(b"layers 3 1 20").digest()
FACTORY = """
from torch import nn

def net():
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, 9)]
    return nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), *head)
"""


def weights(config: TrainConfig, quiet: Progress) -> bytes:
    """Train in a process whose global generator is anywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.seed()
        before = torch.get_rng_state()
        state = train(config, quiet).state
        assert torch.equal(torch.get_rng_state(), before)
    return b"".join(tensor.numpy().tobytes() for tensor in state.values())


def test_a_network_with_dropout_ends_in_the_same_weights(quiet, monkeypatch):
    Path("dropout_nets.py").write_text(FACTORY)
    dataset = DatasetConfig("imagefolder", str(write_images(Path("photos"))))
    config = TrainConfig(
        out="a", network=NetworkConfig("dropout_nets:net"), dataset=dataset, image_size=16, epochs=2
    )
    config = replace(config, batch_size=5, device="cpu", workers=0)
    whole = weights(config, quiet)
    assert weights(replace(config, out="b"), quiet) == whole
    assert weights(replace(config, out="c", seed=1), quiet) != whole
    left, rate = [0, 6], extract.train.learning_rate  # steps until Ctrl-C: within the second epoch of 4 steps

    def until(*arguments: object) -> float:
        left[0] += 1
        if left[0] == left[1]:
            raise KeyboardInterrupt
        return rate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(extract.train, "learning_rate", until)
        with pytest.raises(Interrupted):
            weights(replace(config, out="d"), quiet)
    assert weights(replace(config, out="d", resume=True), quiet) == whole


def test_draws_differ_from_step_to_step():
    def drawn(*where: int) -> float:
        with extract.train.layer_draws(*where, torch.device("cpu")):
            return float(torch.rand(()))

    places = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (10, 0, 0), (1, 0, 10)]
    assert len({drawn(*place) for place in places}) == len(places)
    assert drawn(1, 2, 3) == drawn(1, 2, 3)


def test_the_numbers_of_a_step_are_those_of_every_version():
    """Of the first 8 bytes of SHA-256; a run that was begun before must go on alike."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(DIGEST[:8], "big"))
        expected = torch.rand(5)
    with layer_draws(3, 1, 20, torch.device("cpu")):
        assert torch.equal(torch.rand(5), expected)
    with layer_draws(3, 1, 20, torch.device("cpu"), rank=1):
        assert not torch.equal(torch.rand(5), expected)


def test_on_a_gpu_its_own_generator_gets_the_same_number(monkeypatch):
    seeded, current = {}, []
    gpu = torch.device("cuda", 1)

    @contextmanager
    def entered(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", entered)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda number: seeded.setdefault(current[-1], number))
    with torch.random.fork_rng(devices=[]):
        monkeypatch.setattr(torch.random, "fork_rng", lambda devices: entered(*devices))
        with layer_draws(3, 1, 20, gpu):
            assert seeded == {gpu: torch.initial_seed()} == {gpu: int.from_bytes(DIGEST[:8], "big")}
