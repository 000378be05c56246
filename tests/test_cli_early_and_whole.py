"""Early checks refuse exactly what the whole command refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bad_input import FOLDER, TINY, refuse, run, succeed
from test_cli_early import CASES, OF_STORES, make_folder

from extract.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from extract.config import TrainConfig
from extract.training.interrupted.how_far import how_far
from extract.training.interrupted.resume import earlier_run
from finetune.commands import early
from store.errors import UserError

pytestmark = pytest.mark.usefixtures("in_tmp_path")
DATA = Path(__file__).parent / "data" / "program_0_1"


@pytest.fixture(scope="module")
def early_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands of test_cli_early find. Do not modify."""
    return make_folder(tmp_path_factory.mktemp("early"))


@pytest.mark.parametrize("epochs", [None, "90", 1, {}, []], ids=repr)
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]], ids=["", "overwrite"])
def test_a_checkpoint_and_a_config_of_another_program(epochs: object, overwrite: list[str]) -> None:
    """Not a run of ours, unfinished or not, and never replaced."""
    Path("theirs").mkdir()
    content = {"model": {"weight": torch.zeros(3)}, "epoch": 1, "epochs": 2, "format_version": 1}
    torch.save(content, "theirs/checkpoint.pt")
    Path("theirs/config.json").write_text(json.dumps({"epochs": epochs}))
    says = ["theirs: already exists and is not a training run that may be replaced", "name another path"]
    refuse("train", "--out", "theirs", *overwrite, says=says)


@pytest.mark.parametrize("name", ["half_phase1", "phase1"])
@pytest.mark.parametrize("damage", [1000, 10])
def test_how_far_a_training_has_come(name: str, damage: int) -> None:
    checkpoint = DATA / name / "checkpoint.pt"
    expected = load_checkpoint(checkpoint)
    assert how_far(checkpoint) == (expected.epoch, expected.config["epochs"])
    Path("cut.pt").write_bytes(checkpoint.read_bytes()[:-damage])
    assert how_far(Path("cut.pt")) is None
    save_checkpoint(replace(expected, class_names=["epoch", "epochs"], class_counts=[7, 7]), Path("odd.pt"))
    assert how_far(Path("odd.pt")) == (expected.epoch, expected.config["epochs"])
    torch.save(torch.load(checkpoint, weights_only=True) | {"format_version": 3}, "newer.pt")
    assert how_far(Path("newer.pt")) is None


def test_a_run_that_ended_between_its_metrics_and_its_checkpoint(
    small_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """metrics.csv has the last epoch, but only the checkpoint counts: it can be resumed."""
    command = ["train", *FOLDER, *TINY, "--root", small_root, "--out", "r"]
    saved = []

    def save_once(*arguments: object) -> None:
        if saved:
            raise RuntimeError("killed")
        saved.append(True)
        save_checkpoint(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("extract.train.save_checkpoint", save_once)
        assert run(*command).exception is not None
    assert Path("r/metrics.csv").read_text().count("\n") == 2
    refuse(
        *command, says=["r: already holds an interrupted run (epoch 0 of 1); pass --resume to continue it"]
    )
    succeed("train", "--out", "r", "--resume")
    refuse(*command, says=["r: already holds a finished run (epoch 1 of 1); pass --overwrite"])


STORED = {  # by source: options that a run was started with
    "imagefolder": [
        "--no-flip",
        "--skip-bad-images",
        "--imbalance-factor=2",
        "--val-per-class=1",
        "--seed=3",
    ],
    "cifar10": ["--download", "--no-flip", "--dataset=cifar10", "--lr=0.1", "--recipe=short"],
    "digits": ["--dataset=digits", "--arch=resnet20", "--width=4", "--epochs=2", "--image-size=32"],
}


@pytest.mark.parametrize("source", STORED)
def test_a_resume_takes_each_option_that_is_stored(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one that the default data set would refuse."""
    shutil.copytree(DATA / "half_phase1", "r")
    path = Path("r/checkpoint.pt")
    made = load_checkpoint(path)
    training = made.config | {"seed": 3 if source == "imagefolder" else 0, "lr": 0.1}
    training |= {"image_size": 32, "recipe": "short", "epochs": 2}
    own = {"dataset": source, "no_flip": source != "digits", "download": source == "cifar10"}
    if source == "imagefolder":
        own |= {"skip_bad_images": True, "imbalance_factor": 2.0, "val_per_class": 1}
    dataset = made.dataset | {"root": None if source == "digits" else "/images"} | own
    save_checkpoint(replace(made, config=training | {"dataset": dataset}, dataset=dataset), path)

    def accept(config: TrainConfig, _: object) -> None:
        earlier_run(config.resolved())
        raise UserError("accepted")

    monkeypatch.setattr("extract.train.train", accept)
    for given in [[], *([option] for option in STORED[source]), STORED[source]]:
        refuse("train", "--out", "r", "--resume", *given, says=["accepted"])
    refuse("train", "--out", "r", "--resume", "--momentum=0.5", says=["cannot resume: momentum was 0.9"])
    refuse("train", "--out", "r", "--resume", "--lr=-1", says=["--lr -1.0: must be 0 or more"])


REFUSED = [(c, says) for c, says in CASES + OF_STORES if c[:4] != "demo"]  # these print something first


@pytest.mark.parametrize(("command", "says"), REFUSED, ids=[command for command, _ in REFUSED])
def test_the_whole_command_refuses_the_same(
    command: str, says: str, early_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without early checks, the line is the same."""
    monkeypatch.chdir(early_folder)
    for name in vars(early):
        if name.startswith("check_"):
            monkeypatch.setattr(early, name, lambda *_: None)
    refuse(*command.split(), says=[says])
