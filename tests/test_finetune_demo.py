"""The demo, interrupted: the same command starts over, and finishes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bad_input import refuse, succeed
from test_cli_advice import interrupted

from extract.config import DatasetConfig, NetworkConfig
from finetune.demo import DemoPhases, plan_demo

pytestmark = [pytest.mark.figures, pytest.mark.usefixtures("in_tmp_path")]
MOMENTS = [  # in turn, each in the folder that the previous one left
    ("extract.train.take_step", 2),
    ("store.drafts.local.LocalDraft.publish.", 1),
    ("finetune.training.head_pool.HeadPool.train_on", 2),
]


def tiny(plan: Callable[..., DemoPhases] = plan_demo) -> Callable[..., DemoPhases]:
    """The demo's phases with almost nothing to compute."""

    def planned(*arguments: Any) -> DemoPhases:
        phases = plan(*arguments)
        small = {"network": NetworkConfig("resnet8", width=4), "epochs": 1, "precision": "fp32"}
        train = replace(phases.train, **small, dataset=DatasetConfig("digits", imbalance_factor=70))
        quick = {"iterations": 4, "eval_every": 2, "window": 2}
        return DemoPhases(train, phases.extract, [replace(run, **quick) for run in phases.finetune[:1]])

    return planned


def test_an_interrupted_demo_says_that_it_begins_anew_and_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.demo.plan_demo", tiny())
    monkeypatch.setattr("finetune.demo.SEEDS", (0,))
    demo = ["demo", "--out", "d", "--device", "cpu"]
    for moment in MOMENTS:
        assert interrupted(demo, *moment) == "tailcache: interrupted; the same command starts over", moment
    assert "d/report/summary.csv" in succeed(*demo).stdout
    left = [path.name for path in Path().rglob("*") if "unfinished" in path.name or "lock" in path.name]
    assert not left


@pytest.mark.parametrize("out", ["/", "//", "root", "/tmp/.."])
def test_the_demo_does_not_write_into_the_root_of_the_file_system(out: str) -> None:
    Path("root").symlink_to("/")
    refuse(
        "demo", "--out", out, says=[f"{Path(out)}: is the root of the file system; use a folder for the d"]
    )
    assert not Path("/seed0").exists()


def test_the_demo_is_not_written_below_a_file() -> None:
    Path("taken").write_text("mine")
    refuse("demo", "--out", "taken", says=["taken: is a file, so taken/seed0 cannot be written under it"])
