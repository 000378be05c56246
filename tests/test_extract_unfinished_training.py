"""A training that was not finished is told in every phase that uses its network, whatever head it has."""

import shutil
from pathlib import Path

import pytest
from bad_input import succeed

pytestmark = pytest.mark.usefixtures("in_tmp_path")
MADE = Path(__file__).parent / "data" / "program_0_1"
IMAGES = ["--root", MADE / "images", "--device", "cpu"]
NCM = ["--method", "ncm", "--device", "cpu", "--select-on", "test"]


def phases(ckpt: Path) -> dict[str, str]:
    """What each phase says on stderr, from a Phase I on."""
    return {
        "extract": succeed("extract", "--ckpt", ckpt, "--store", "s.zarr", *IMAGES).stderr,
        "finetune": succeed("finetune", "--store", "s.zarr", "--out", "run", *NCM).stderr,
        "sweep": succeed("sweep", "--store", "s.zarr", "--out", "sweep", *NCM).stderr,
        "evaluate": succeed("evaluate", "--ckpt", ckpt, *IMAGES).stderr,
        "evaluate run": succeed("evaluate", "--ckpt", "run/checkpoint.pt", *IMAGES).stderr,
    }


def test_every_phase_after_an_unfinished_training_says_so() -> None:
    shutil.copytree(MADE / "half_phase1", "half")
    told = phases(Path("half/checkpoint.pt"))
    for phase, said in told.items():
        assert "training is not finished (epoch 1 of 2)" in said.replace("training that is", "training is"), (
            phase
        )
        assert "train --resume" in said, phase
        assert said.count("not finished") == 1, phase
    assert "run/checkpoint.pt: its head was fine-tuned on a network whose" in told["evaluate run"]
    assert "--out run`" not in told["evaluate run"]  # where there is no training to go on with


def test_nothing_is_said_of_a_finished_one() -> None:
    for phase, said in phases(MADE / "phase1" / "checkpoint.pt").items():
        assert "not finished" not in said, phase
