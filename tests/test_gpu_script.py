"""`make gpu` on the CPU: its stages with tiny sizes, and stages that fail, hang, or find no GPU."""

import importlib
import json
import os
import re
import select
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu")


@pytest.fixture
def python(script: ModuleType) -> ModuleType:
    return importlib.import_module("gpu_python")


def planned(script: ModuleType, name: str, device: str = "cpu", tiny: bool = True) -> tuple[str, ...]:
    (command,) = (s.command for s in script.stages(sys.executable, device, tiny) if s.name == name)
    return command


def figures_of(script: ModuleType, name: str, tmp_path: Path) -> dict:
    """What a stage's own script finds on the CPU, run in this process with its options as planned."""
    _, path, *options = planned(script, name)
    command = importlib.import_module(Path(path).stem).main
    found = tmp_path / "figures.json"
    result = CliRunner().invoke(command, [part.replace("{json}", str(found)) for part in options])
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(found.read_text())


def test_the_walk_goes_through_every_command_and_finds_no_difference(script, tmp_path):
    walk = figures_of(script, "walk", tmp_path)
    commands = {name.split()[0].strip(",") for name in walk["seconds"]}
    assert commands == {
        "train",
        "extract",
        "evaluate",
        "verify",
        "store",
        "finetune",
        "sweep",
        "contest",
        "analyze",
    }
    compared = {check["what"]: check for check in walk["checks"]}
    assert all(check["holds"] for check in compared.values())
    assert compared["fsa: plans"]["found"] == "equal"
    assert compared["fsa: heads of two devices, of the largest weight"]["found"] == "0.0e+00"
    assert {"head.pt of host and stream", "head.pt of host and host-again"} <= compared.keys()


def test_a_walk_on_which_a_command_fails_goes_on_and_says_so(script, tmp_path):
    gpu_walk = importlib.import_module("gpu_walk")
    walk = gpu_walk.Walk("cuda:99", tmp_path, True, tmp_path / "found.json")
    walk.attempt(gpu_walk.many)
    (failed, broken) = json.loads((tmp_path / "found.json").read_text())["checks"]
    assert (failed["what"], failed["holds"]) == ("sweep, here", False)
    assert "no such store" in failed["found"]
    assert (broken["what"], broken["holds"]) == ("many", False)


def test_fine_tuning_is_measured_in_every_residency(script, tmp_path):
    figures = figures_of(script, "fine-tuning, tiny", tmp_path)
    (ms,), (rates,) = figures["ms an iteration"].values(), figures["GB/s"].values()
    assert {"straightforward loop", "host", "stream", "stream, memory for 1/4"} <= ms.keys()
    assert {"drawing the plan", "drawing it by torch, there"} <= ms.keys()
    assert all(value > 0 for value in ms.values())
    fusion, copy = "fusion", "copying the drawn bytes"  # read the same
    assert rates[fusion] / rates[copy] == pytest.approx(ms[copy] / ms[fusion])


def test_the_whole_contest_is_measured(script, tmp_path):
    figures = figures_of(script, "contest", tmp_path)
    (row,) = figures["contest"]  # and nothing else
    assert row["heads"] > 200
    assert not figures["ms an iteration"]


def test_extraction_and_training_are_measured(script, tmp_path):
    (extraction,) = figures_of(script, "extraction", tmp_path)["extraction"]
    (training,) = figures_of(script, "training", tmp_path)["training"]
    for speed in (extraction["bare pass images/s"], extraction["zarr images/s"], training["images/s"]):
        assert speed > 0


def test_both_phases_stand_beside_the_papers_table(script, tmp_path):
    """On images of the caller's, in the last stage; here, one network of two epochs."""
    data, found = tmp_path / "images", tmp_path / "figures.json"
    importlib.import_module("gpu_rates").write_images(data, 1010)
    *others, last = script.stages("python", "cpu", True, str(data))
    assert [stage.name for stage in others] == [stage.name for stage in script.stages("python", "cpu", True)]
    _, path, *options = last.command
    command = importlib.import_module(Path(path).stem).main
    result = CliRunner().invoke(command, [part.replace("{json}", str(found)) for part in options])
    assert result.exit_code == 0, (result.output, result.exception)
    (row,) = json.loads(found.read_text())["both phases"]
    assert (row["imbalance"], row["paper's Phase I"], row["paper's FSA"]) == (100, 75.16, 80.57)
    assert all(row[name] in range(0, 101, 10) for name in ("Phase I", "FSA"))  # of ten test images
    assert all(row[f"{step} s"] > 0 for step in ("train", "extract", "finetune"))


def test_the_stages_of_a_gpu_take_eight_minutes_at_most(script):
    stages = script.stages("python", "cuda:1", False)
    assert sum(stage.cap for stage in stages) <= script.SECONDS == 480
    assert [stage.name for stage in stages[:3]] == ["machine", "tests", "walk"]
    files = [Path(part).name for part in planned(script, "tests", tiny=False) if part.endswith(".py")]
    assert {
        "test_finetune_on_gpu.py",
        "test_finetune_cuda_graph.py",
        "test_extract_device.py",
        "test_finetune_upload.py",
    } <= set(files)
    for stage in stages:
        if stage.name != "tests":
            assert stage.command[stage.command.index("--device") + 1] == "cuda:1"


def program(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


CAP = 59.0  # of the stage that hangs


@pytest.fixture
def hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The process that a hanging stage started: the cap comes once it has, however busy the machine is."""
    found, started = [], tmp_path / "pid"
    os.mkfifo(started)

    class Capped(subprocess.Popen):
        def wait(self, timeout: float | None = None) -> int:
            if timeout == CAP:
                found.append(int(started.read_text()))
                raise subprocess.TimeoutExpired(self.args, timeout)
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Capped)
    return found


def test_a_stage_that_fails_or_hangs_stops_no_other(script, tmp_path, capsys, hung):
    """And what it started ends with it."""
    hang = (
        "import os, subprocess, sys, threading\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import threading; threading.Event().wait()'])\n"
        "print('waiting', flush=True)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "threading.Event().wait()\n"
    )
    good = 'import sys; open(sys.argv[1], "w").write("{\\"images\\": 3}"); print("done")'
    stages = [
        script.Stage("missing", (str(tmp_path / "nothing"),), 60),
        script.Stage("failing", program("print('before'); 1 / 0"), 60),
        script.Stage("hanging", program(hang), CAP),
        script.Stage("good", (*program(good), "{json}"), 60),
    ]
    seen, report = [], tmp_path / "gpu.json"
    write = script.write

    def noting(path: Path, found: dict) -> None:
        write(path, found)
        seen.append(list(json.loads(report.read_text())["stages"]))

    script.write = noting
    try:
        found = script.run_stages(stages, report, {"stages": {}}, 10_000)
    finally:
        script.write = write
    assert [len(names) for names in seen] == [1, 2, 3, 4]  # whatever comes, what came before is told
    outcomes = {name: outcome["outcome"] for name, outcome in found["stages"].items()}
    assert outcomes == {"missing": "failed", "failing": "failed", "hanging": "capped", "good": "ok"}
    assert found["stages"]["failing"]["output"][-1].startswith("ZeroDivisionError")
    assert found["stages"]["hanging"]["output"] == ["waiting"]
    assert found["stages"]["good"]["figures"] == {"images": 3}
    assert ends(*hung)
    assert "ZeroDivisionError" in capsys.readouterr().out


def ends(pid: int) -> bool:
    """Whether a process has ended, or does now, whether or not its parent looks."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with open(process):
        return bool(select.select([process], [], [], 60)[0])


def test_stages_for_which_no_time_is_left_are_capped(script, tmp_path):
    stages = [script.Stage(name, program("import threading; threading.Event().wait()"), 60) for name in "ab"]
    found = script.run_stages(stages, tmp_path / "gpu.json", {"stages": {}}, 0.5)
    assert [outcome["outcome"] for outcome in found["stages"].values()] == ["capped", "capped"]


def test_lines_for_the_documents(script):
    rows = [{"network": "resnet32", "precision": "fp32", "images/s": 12345.6}]
    stages = {
        "machine": {"outcome": "ok", "seconds": 1.5, "figures": {"GPU": "A Card", "torch": "9.1"}},
        "tests": {
            "outcome": "failed",
            "seconds": 2.0,
            "figures": {},
            "last line": "1 failed, 2 passed in 3s",
        },
        "walk": {"outcome": "capped", "seconds": 3.0, "figures": {"seconds": {"a": 1}, "checks": []}},
        "f": {"outcome": "ok", "seconds": 4.0, "figures": {"ms an iteration": {"Shape": {"host": 0.05}}}},
        "training": {"outcome": "ok", "seconds": 5.0, "figures": {"training": rows}},
    }
    lines = script.performance_lines({"stages": stages})
    assert lines[0] == "## On A Card"
    assert "| tests | failed | 2.0 | 1 failed, 2 passed |" in lines
    assert "| walk | capped | 3.0 | 1 commands, 0 of 0 comparisons hold |" in lines
    assert "| host | 0.050 | 20,000 |" in lines
    assert "| resnet32 | fp32 | 12,346 |" in lines


def test_the_whole_as_a_command_without_a_gpu(tmp_path):
    """Where there is none every stage fails at once, and all of it is told."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    out = tmp_path / "gpu.json"
    code = (
        f"import sys; from dataclasses import replace; sys.path.insert(0, {str(BENCHMARKS)!r}); import gpu\n"
        "planned = gpu.stages\n"
        "gpu.stages = lambda *a: [replace(s, cap=400) for s in planned(*a) if s.name == 'machine']\n"
        f"sys.argv[1:] = ['--out', {str(out)!r}]\n"
        "sys.exit(gpu.main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    machine = json.loads(out.read_text())["stages"]["machine"]
    assert machine["outcome"] == "failed"
    assert "has 0 CUDA devices" in machine["last line"]
    assert f"all of it: {out}" in done.stdout


def test_requirements_are_those_of_the_package(python):
    needed = python.requirements()
    assert {"torch", "zarr", "google-crc32c", "ml_dtypes", "pytest"} <= needed.keys()
    assert all(python.numbers(least) for least in needed.values())
    assert python.missing() == []
    assert python.numbers("2.14.1+cu130") == (2, 14, 1)
    carried = {re.match(r"[\w-]+", requirement)[0] for requirement in python.to_carry()}
    assert carried == needed.keys() - {"torch", "torchvision"}


@pytest.mark.parametrize(
    ("there", "lacking"), [("3.1.5", True), ("3.1.6", False), ("3.10", False), (None, True)]
)
def test_what_is_missing_or_too_old_is_named(python, monkeypatch, there, lacking):
    version = metadata.version

    def made_up(name: str) -> str:
        if name == "zarr" and there is None:
            raise metadata.PackageNotFoundError
        return there if name == "zarr" else version(name)

    monkeypatch.setattr("importlib.metadata.version", made_up)
    monkeypatch.setattr(python, "requirements", lambda: {"zarr": "3.1.6", "numpy": "2.0.2"})
    assert python.missing() == (["zarr>=3.1.6"] if lacking else [])


def test_what_cannot_be_installed_is_told_in_one_line(python, monkeypatch, tmp_path):
    """torch is the machine's own; the rest comes from the folder of wheels alone."""
    ran = []

    def run(command: list[str]) -> None:
        ran.append(command)
        if "venv" in command:
            (tmp_path / "venv" / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
        else:
            raise subprocess.CalledProcessError(1, command, "", "long story\nERROR: no wheel of zarr\n")

    monkeypatch.setattr(python, "_run", run)
    monkeypatch.setattr(python, "missing", lambda: ["torch>=2.6", "zarr>=3.1.6"])
    found, lacking = python.complete_python("wheels", tmp_path / "venv")
    assert found == sys.executable
    assert "\n" not in lacking
    for part in ("torch>=2.6", "zarr>=3.1.6", "no wheel of zarr"):
        assert part in lacking
    assert "--system-site-packages" in ran[0]
    assert ran[1][-4:] == ["--no-index", "--find-links", "wheels", "zarr>=3.1.6"]
    (path,) = tmp_path.glob("venv/lib/*/site-packages/machine.pth")
    assert str(Path(pytest.__file__).parent.parent) in path.read_text().splitlines()
