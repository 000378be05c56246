"""Every phase that uses a network whose training stopped early says so, whatever its head."""

import shutil
from pathlib import Path

import pytest
from bad_input import succeed

pytestmark = pytest.mark.usefixtures("in_tmp_path")
MADE = Path(__file__).parent / "data" / "program_0_1"
IMAGES = ["--root", MADE / "images", "--device", "cpu"]
NCM = ["--method", "ncm", "--device", "cpu", "--select-on", "test"]


def phases(ckpt: Path) -> dict[str, str]:
    """The stderr of each phase after a Phase I."""
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
        assert "training stopped early (epoch 1 of 2)" in said, phase
        assert "train --resume" in said, phase
        assert said.count("stopped early") == 1, phase
    assert "run/checkpoint.pt: its head was fine-tuned on a network whose" in told["evaluate run"]
    assert "--out run`" not in told["evaluate run"]  # there is no training to resume


def test_nothing_is_said_of_a_finished_one() -> None:
    for phase, said in phases(MADE / "phase1" / "checkpoint.pt").items():
        assert "stopped early" not in said, phase
