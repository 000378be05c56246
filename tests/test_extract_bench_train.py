"""`make bench-train` in small: what it measures, and what it compares that with."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch
from bad_input import succeed
from click.testing import CliRunner

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench_train")


def test_training_is_measured_beside_every_candidate(bench, tmp_path):
    found = tmp_path / "figures.json"
    options = ["--tiny", "--repeats", "1", "--folder", str(tmp_path), "--json", str(found)]
    result = CliRunner().invoke(bench.main, options)
    assert result.exit_code == 0, (result.output, result.exception)
    figures = json.loads(found.read_text())
    small, large = figures["training"]
    assert small["d"] == float("inf")
    assert small["limit"] == pytest.approx(small["t"])
    assert large["limit"] == pytest.approx(1 / (1 / large["d"] + 1 / large["t"]))
    for row in (small, large):
        assert row["ratio"] == pytest.approx(row["train"] / row["limit"])
        assert row["by gate"] == pytest.approx(row["train"] / row["no gate"])
    assert small["by gate"] == 1 != large["by gate"]  # images in memory need no workers
    ways = {row.pop("training with"): row for row in figures["ways"]}
    assert ways.keys() == set(bench.FEW)
    for row in ways.values():
        assert row["beside"] == bench.FEW[0]
        assert row["ratio"] == pytest.approx(row["images/s"] / ways[row["beside"]]["images/s"])
    assert list(tmp_path.iterdir()) == [found]  # nothing else is left


def test_one_process_and_two_train_alike(bench, tmp_path, monkeypatch):
    """Both through the command line; here, what torchrun is given runs in this process."""
    launched = []

    def launch(command: list[str], **_: object) -> None:
        start = command.index(str(bench.PROGRAM))
        launched.append((command[1:start], command[start + 1 :]))
        succeed(*command[start + 1 :])

    monkeypatch.setattr(bench.subprocess, "run", launch)
    case, root = bench.TINY[0], tmp_path / "images"
    bench.write_class_folders(root, case.n_images, bench.N_CLASSES)
    assert all(bench.trained_by(n, case, root, tmp_path / "run") > 0 for n in (1, 2))
    (no_launcher, alone), (launcher, together) = launched
    assert no_launcher == []
    assert launcher[-2:] == ["--nproc-per-node", "2"]
    assert alone == together


def test_without_a_gate_workers_are_never_stopped(bench):
    gate = bench.Gate(1)
    with bench.no_gate():
        gate.close()
        assert gate.is_open
    gate.close()
    assert not gate.is_open


def test_every_augmentation_is_measured(bench):
    """Each option of the program is on in some of them."""
    on = {name for one in bench.AUGMENTATIONS.values() for name, value in vars(one).items() if value}
    assert on == set(vars(bench.AugmentConfig()))


def test_processes_slower_than_one_are_told(bench, capsys):
    plain = next(iter(bench.AUGMENTATIONS))
    taken = pd.DataFrame(
        {plain: [10.0] * 3, "mixup": [5.0] * 3, "one process": [8.0] * 3, "2 processes": [6.0] * 3}
    )
    assert [row["ratio"] for row in bench.report_ways(taken)] == [1, 0.5, 1, 0.75]
    assert capsys.readouterr().out == "MISSED: 2 processes: 0.75 of one process, goal 1\n"


@pytest.mark.parametrize(("device", "ratio"), [("cpu", 1.0), ("cuda", 0.6)])
def test_the_limit_of_training_is_shared_cores_or_the_slower_machine(bench, device, ratio, capsys):
    taken = {"d": [300.0] * 3, "t": [200.0] * 3, "train": [120.0] * 3, "no gate": [120.0] * 3}
    row = bench.report(bench.TINY[0], pd.DataFrame(taken), torch.device(device))
    assert row["ratio"] == pytest.approx(ratio)
    assert ("MISSED" in capsys.readouterr().out) == (ratio < 0.9)


def test_every_process_decodes_where_images_are_few(bench, monkeypatch):
    monkeypatch.setattr(bench, "available_cores", lambda: 3)
    shares = []

    class Pool:
        def map(self, action, given):
            shares.extend(len(share) for share in given)
            return shares

    for n in (1, 54, 500):
        shares.clear()
        bench.decoding([Path("a.jpg")] * n, None, Pool())()
        assert len(shares) >= min(3, n)
        assert max(shares) <= bench.AT_ONCE
