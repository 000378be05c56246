"""Evaluations in several processes: the same frame, each image looked at once."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bad_input import run
from made_together import in_processes
from rich.progress import Progress

import extract.evaluate
from extract.config import EvaluateConfig
from extract.evaluate import evaluate
from extract.torchrun.meeting import Meeting
from extract.torchrun.shares import Shares
from store.errors import UserError

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.fixture
def config(small_ckpt: Path) -> EvaluateConfig:
    return EvaluateConfig(str(small_ckpt), split="train", batch_size=4, device="cpu", workers=0)


def quietly(config: EvaluateConfig) -> pd.DataFrame:
    return evaluate(config, Progress(disable=True))


@pytest.mark.parametrize(("n", "batch_size", "world"), [(17, 4, 3), (3, 4, 3), (1, 1, 2), (0, 4, 2)])
def test_shares_are_whole_batches_that_have_each_image_once(n, batch_size, world):
    shares = [Shares(Meeting(None, rank, world)).own(n, batch_size) for rank in range(world)]
    assert np.concatenate(shares).tolist() == list(range(n))
    assert all(share[0] % batch_size == 0 for share in shares if len(share))
    n_batches = [-(-len(share) // batch_size) for share in shares]
    assert max(n_batches) - min(n_batches) <= 1


@pytest.mark.parametrize("world", [2, 12])
def test_processes_find_what_a_single_one_finds(config, world):
    """Of 12 processes some have no images at all."""
    alone = quietly(config)
    predict = extract.evaluate.predict

    def counting(rank: int) -> None:
        looked_at = []

        def counted(network, split, *rest):
            looked_at.extend(split.sample_index.tolist())
            return predict(network, split, *rest)

        extract.evaluate.predict = counted
        pd.testing.assert_frame_equal(quietly(config), alone)
        pd.testing.assert_frame_equal(quietly(replace(config, batch_size=3)), alone)
        np.save(f"looked-at-{rank}.npy", np.array(looked_at, np.int64))

    assert in_processes(world, counting) == [0] * world, Path("stderr-0").read_text()
    looked_at = np.concatenate([np.load(f"looked-at-{rank}.npy") for rank in range(world)])
    images, times = np.unique(looked_at, return_counts=True)
    assert len(images) == alone["n_test"].sum()
    assert set(times) == {2}  # once in each evaluation
    assert len(np.load("looked-at-0.npy")) < 2 * len(images)


def test_the_first_process_alone_prints_an_evaluation(config):
    command = ["evaluate", "--ckpt", config.ckpt, "--device", "cpu", "--workers", 0]
    alone = run(*command)

    def printing(rank: int) -> None:
        result = run(*command)
        assert result.exit_code == 0, result.output
        assert (result.stdout, result.stderr) == ((alone.stdout, alone.stderr) if rank == 0 else ("", ""))

    assert in_processes(3, printing) == [0] * 3, Path("stderr-1").read_text()


def test_evaluations_of_different_options_are_refused(config):
    def refused(rank: int) -> None:
        with pytest.raises(UserError, match="process 1 has val for --split, but process 0 has train"):
            quietly(replace(config, split="val") if rank else config)

    assert in_processes(2, refused) == [0, 0], Path("stderr-0").read_text()


def test_evaluations_of_different_checkpoints_at_one_path_are_refused(config):
    """For example on machines with disks of their own."""
    content = Path(config.ckpt).read_bytes()
    for rank in range(2):
        Path(f"machine-{rank}").mkdir()
        Path(f"machine-{rank}", "checkpoint.pt").write_bytes(content + bytes(rank))

    def refused(rank: int) -> None:
        os.chdir(f"machine-{rank}")
        with pytest.raises(
            UserError, match=r"process 1 has checkpoint.pt \(SHA-256 .*for --ckpt, but process 0"
        ):
            quietly(replace(config, ckpt="checkpoint.pt"))

    assert in_processes(2, refused) == [0, 0], Path("stderr-0").read_text()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("WORLD_SIZE", "two", "WORLD_SIZE is 'two', expected a whole number of 1 or more"),
        ("WORLD_SIZE", "0", "WORLD_SIZE is '0', expected a whole number of 1 or more"),
        ("RANK", None, "RANK is not set, expected a whole number of 0 or more"),
        ("RANK", "-1", "RANK is '-1', expected a whole number of 0 or more"),
        ("RANK", "2", "RANK is 2, expected a number below WORLD_SIZE 2"),
        ("LOCAL_RANK", "", "LOCAL_RANK is '', expected a whole number of 0 or more"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "extract"])
def test_an_environment_that_is_not_torchruns_is_refused(config, monkeypatch, command, name, value, says):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for variable, given in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", name: value}.items():
        if given is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, given)
    options = {
        "evaluate": ["--ckpt", config.ckpt],
        "extract": ["--ckpt", config.ckpt, "--store", "s.zarr"],
    }[command]
    result = run(command, *options, "--device", "cpu")
    assert result.exit_code == 2, result.output
    assert says in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert os.listdir() == []


@pytest.mark.parametrize("command", ["finetune", "predict", "export", "analyze", "demo", "store info"])
def test_commands_of_one_process_are_refused_under_torchrun(monkeypatch, command):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    result = run(*command.split(), "s.zarr")
    assert result.exit_code == 2, result.output
    name = command.split()[0]
    assert (
        f"{name}: runs in one process, and WORLD_SIZE says that there are 2; start it without"
        in result.output
    )
    assert len(result.output.strip().splitlines()) == 1
    assert os.listdir() == []
