"""Phase I in several processes: the steps of a single one, written by the first, survived by resuming."""

import os
import shutil
import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from bad_input import run, write_images
from made_together import NETS, in_processes
from made_training import saved, train_interrupted
from rich.progress import Progress
from torch import nn
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import extract.train
from extract.checkpoints.checkpoint import Checkpoint
from extract.config import DatasetConfig, NetworkConfig, TrainConfig
from extract.train import train
from extract.training.losses.config import LossConfig
from extract.training.optimisation.config import OptimConfig
from extract.training.together.ranks import Ranks
from extract.training.together.statistics import synchronised
from store.errors import Interrupted, UserError

N_IMAGES = 18  # of training; in batches of 7, the last has 4


@pytest.fixture
def config(in_tmp_path) -> TrainConfig:
    """A network without BatchNorm: a step depends on a whole batch only by the mean of its losses."""
    Path("plain_nets.py").write_text(NETS)
    return TrainConfig(
        out="alone",
        network=NetworkConfig("plain_nets:plain"),
        dataset=DatasetConfig("imagefolder", str(write_images(Path("photos")))),
        image_size=16,
        epochs=2,
        batch_size=7,
        lr=0.1,
        eval_every=1,
        device="cpu",
        workers=0,
    )


def quietly(config: TrainConfig) -> Checkpoint:
    return train(config, Progress(disable=True))


def check_close(found: Checkpoint, expected: Checkpoint) -> None:
    """The same weights and metrics but for rounding, and weights that were trained."""
    for name, tensor in expected.state.items():
        torch.testing.assert_close(found.state[name], tensor, rtol=1e-4, atol=1e-6)
    rows = [pd.DataFrame(one.history).filter(regex="^(?!seconds|processes)") for one in (found, expected)]
    pd.testing.assert_frame_equal(*rows, rtol=1e-4, check_like=True)


OPTIONS = {
    "plain": {},
    "accumulated and clipped": {"optimisation": OptimConfig(accumulate=2, clip_gradient=0.1)},
    "sharp and averaged": {"optimisation": OptimConfig(sam=0.05, ema_decay=0.5)},
    "pairs of images": {"objective": LossConfig(loss="lifted")},
    "turned images": {"objective": LossConfig(loss="sla")},
}


@pytest.mark.parametrize(("world", "named"), list(zip((2, 3, 2, 2, 3), OPTIONS, strict=True)))
def test_processes_take_the_steps_of_a_single_one(config, world, named):
    config = replace(config, **OPTIONS[named])
    alone = quietly(config)
    assert in_processes(world, lambda rank: quietly(replace(config, out="together"))) == [0] * world
    together = saved(replace(config, out="together"))
    check_close(together, alone)
    assert [row["processes"] for row in together.history] == [world] * 2
    assert not any("processes" in row for row in alone.history)


def test_files_are_shared_out_and_seen_as_by_a_single_process(config):
    """Images above 64 pixels stay files, of which each process decodes its own."""
    config = replace(config, image_size=72, epochs=1, workers=1)
    alone = quietly(config)
    read = extract.images.parts.image_views

    def counted(rank: int) -> None:
        paths = []

        def reading(path, *rest):
            paths.append(path)
            return read(path, *rest)

        extract.images.parts.image_views = reading
        quietly(replace(config, out="together", workers=0))
        Path(f"read-{rank}").write_text(str(sum("/train/" in str(path) for path in paths)))

    assert in_processes(2, counted) == [0, 0]
    assert [Path(f"read-{rank}").read_text() for rank in range(2)] == ["10", "8"]  # of 7, 7 and 4
    check_close(saved(replace(config, out="together")), alone)


@pytest.mark.parametrize("killed", [0, 1])
def test_one_that_dies_ends_the_others_in_one_line_and_others_resume(config, killed):
    alone = quietly(config)
    calls, rate = [], extract.train.learning_rate

    def dying(rank: int) -> None:
        def until(*arguments: object) -> float:
            calls.append(1)
            if rank == killed and len(calls) == 5:  # within the second epoch of three batches
                os.kill(os.getpid(), signal.SIGKILL)
            return rate(*arguments)

        extract.train.learning_rate = until
        with pytest.raises(UserError, match=r"another process stopped.*--resume continues"):
            quietly(replace(config, out="together"))

    codes = in_processes(2, dying)
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] == 0, Path(f"stderr-{1 - killed}").read_text()
    assert saved(replace(config, out="together")).epoch == 1
    resumed = replace(config, out="together", resume=True)
    assert in_processes(3, lambda rank: quietly(resumed)) == [0] * 3
    check_close(saved(resumed), alone)


def test_ctrl_c_in_one_process_ends_all_after_the_same_step(config):
    alone = quietly(config)
    calls, rate = [], extract.train.learning_rate

    def told(rank: int) -> None:
        def until(*arguments: object) -> float:
            calls.append(1)
            if rank == 1 and len(calls) == 4:
                for _ in range(2):  # torchrun hands on what a terminal sent to all
                    os.kill(os.getpid(), signal.SIGINT)
            return rate(*arguments)

        extract.train.learning_rate = until
        with pytest.raises(Interrupted):
            quietly(replace(config, out="together"))
        assert len(calls) == 4

    assert in_processes(2, told) == [0, 0], Path("stderr-1").read_text()
    resumed = replace(config, out="together", resume=True)
    assert saved_steps(resumed) == 1
    check_close(quietly(resumed), alone)


def saved_steps(config: TrainConfig) -> int:
    """Steps of the interrupted epoch that are saved."""
    return torch.load(Path(config.out) / "unfinished_epoch.pt", weights_only=True)["step"]


def test_processes_that_find_other_runs_at_one_path_are_refused(config):
    """For example on machines with disks of their own, whose momentum would differ."""
    train_interrupted(replace(config, out="run"), 4)
    for rank in range(2):
        shutil.copytree("run", f"machine-{rank}/run")
    content = torch.load("machine-1/run/checkpoint.pt", weights_only=True)
    content["history"][0]["seconds"] += 1
    torch.save(content, "machine-1/run/checkpoint.pt")

    def refused(rank: int) -> None:
        os.chdir(f"machine-{rank}")
        with pytest.raises(UserError, match=r"process 1 has 1 epochs .*, but process 0 has 1 epochs"):
            quietly(replace(config, out="run", resume=True))

    assert in_processes(2, refused) == [0, 0], Path("stderr-0").read_text()


def test_a_step_half_done_by_one_process_is_finished_by_two(config):
    config = replace(config, optimisation=OptimConfig(accumulate=3))
    alone = quietly(config)
    steps, rate = [], extract.train.learning_rate
    with pytest.MonkeyPatch.context() as patch:

        def until(*arguments: object) -> float:
            steps.append(1)
            if len(steps) == 3:
                raise KeyboardInterrupt
            return rate(*arguments)

        patch.setattr(extract.train, "learning_rate", until)
        with pytest.raises(KeyboardInterrupt):
            quietly(replace(config, out="together"))
    resumed = replace(config, out="together", resume=True)
    assert in_processes(2, lambda rank: quietly(resumed)) == [0, 0]
    check_close(saved(resumed), alone)


def test_the_first_process_alone_prints_and_writes(config, tmp_path):
    """With BatchNorm and under what `torchrun` starts processes with."""
    options = ["--root", "photos", "--arch", "resnet8", "--width", 2, "--image-size", 16, "--epochs", 1]
    command = ["train", *options, "--batch-size", 6, "--device", "cpu", "--out", "together"]

    def printed() -> None:
        torch.set_num_threads(1)
        result = run(*command)
        Path(f"stdout-{os.environ['RANK']}").write_text(result.stdout)
        Path(f"notes-{os.environ['RANK']}").write_text(result.stderr)
        assert result.exit_code == 0, result.output

    def launched(_: int) -> None:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            del os.environ[name]
        how = LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork")
        elastic_launch(how, printed)()

    assert in_processes(1, launched) == [0], Path("stderr-0").read_text()
    assert "together/checkpoint.pt: 1 epoch, accuracy in %" in Path("stdout-0").read_text()
    assert Path("stdout-1").read_text() == Path("notes-1").read_text() == ""
    assert (
        "BatchNorm layers take their statistics over each process's own share" in Path("notes-0").read_text()
    )
    assert sorted(path.name for path in Path("together").iterdir()) == [
        "checkpoint.pt",
        "config.json",
        "metrics.csv",
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            [{}, {"lr": 0.2}],
            "process 1 has --lr 0.2, but process 0 has --lr 0.1; start all with the same options",
        ),
        ([{"batch_size": 1}] * 2, "--batch-size 1: is shared out among 2 processes"),
        (
            [{"batch_size": 17}] * 2,
            "--batch-size 17: leaves 1 of 18 training images for an epoch's last batch",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused_in_one_line(config, changes, says):
    def refused(rank: int) -> None:
        with pytest.raises(UserError) as error:
            quietly(replace(config, **changes[rank]))
        assert says in str(error.value), error.value

    codes = in_processes(2, refused)
    assert codes == [0, 0], [Path(f"stderr-{rank}").read_text() for rank in range(2)]
    assert not Path("alone").exists()


def test_synchronised_layers_keep_names_and_tensors_and_derived_ones_what_they_do():
    class NormAndReLU(nn.BatchNorm2d):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images).relu()

    twice = nn.BatchNorm2d(3)
    network = nn.Sequential(nn.Identity(), twice, nn.Sequential(NormAndReLU(3), twice)).eval()
    images, names = torch.linspace(-1, 1, 384).view(2, 3, 8, 8), list(network.state_dict())
    before = network(images)
    assert torch.equal(synchronised(network)(images), before)
    assert list(network.state_dict()) == names
    kinds = [type(network[1]), type(network[2][0]), type(network[2][1])]
    assert kinds == [nn.SyncBatchNorm, NormAndReLU, nn.SyncBatchNorm]
    assert network[1] is network[2][1]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_rows_of_a_batch_are_shared_out_evenly(world):
    for n in range(40):
        shares = [list(range(n))[Ranks(rank, world).rows(n)] for rank in range(world)]
        assert [row for share in shares for row in share] == list(range(n))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("others", ["same", "other"])
def test_no_process_goes_on_before_all_have_read(others, monkeypatch):
    """The first may host the store, and end at once: gone too early, it ends the others."""
    steps = []
    store = SimpleNamespace(
        set=lambda key, text: steps.append("said"),
        get=lambda key: steps.append("read") or (b"same" if key.endswith("/0") else others.encode()),
    )
    monkeypatch.setattr(Ranks, "wait", lambda self: steps.append("all are here"))
    with nullcontext() if others == "same" else pytest.raises(UserError, match="process 1 has other"):
        Ranks(0, 2, store).check_same("options", "same")
    assert steps == ["all are here", "said", "read", "read", "all are here"]
