"""Test whether everything works on a machine with a GPU, and how fast it is: run this first on one.

Run with `make gpu`, from a bare checkout, or `make gpu WHEELS=folder` without a network.
Stages run in turn, the most informative first, each in its own process that is stopped, with all that it
started, when its time is up. After every stage, all results so far are in one JSON file. At the end,
lines for docs/performance.md are printed; the exit code is 1 if a stage failed.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_python import ROOT, complete_python

HERE, TESTS = ROOT / "benchmarks", ROOT / "tests"
SECONDS = 480  # limit of the whole run, but for --data
SECONDS_OF_DATA = 360
LAST_LINES = 40  # output lines kept of a failed stage


@dataclass(frozen=True)
class Stage:
    """A process.

    Attributes:
        name: its name.
        command: its arguments; {json} is a file for its results.
        cap: time limit in seconds.
    """

    name: str
    command: tuple[str, ...]
    cap: float


def stages(python: str, device: str, tiny: bool, data: str | None = None) -> list[Stage]:
    """The stages, in order; with images of CIFAR-10, also both phases on them."""

    def script(name: str, *options: str, small: tuple[str, ...] = ("--tiny",)) -> tuple[str, ...]:
        always = ("--device", device, "--json", "{json}")
        return (python, str(HERE / name), *options, *always, *(small if tiny else ()))

    def phase_2(shape: str, contest: str, repeats: int = 1) -> tuple[str, ...]:
        options = ("--repeats", str(repeats), "--shape", shape, "--contest", contest)
        return script("bench_finetune.py", *options, small=())

    pytest = (python, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    marked = sorted(str(path) for path in TESTS.glob("test_*.py") if "mark.cuda" in path.read_text())
    tests = ("--collect-only", marked[0]) if tiny else ("-m", "cuda", "-rf", "--durations=5", *marked)
    shapes = [("tiny", 1, 60)] if tiny else [("resnet18", 2, 65), ("resnet50", 1, 80)]
    own = script("gpu_phase1.py", str(data))
    return [
        Stage("machine", script("gpu_rates.py", "machine", small=()), 20),
        Stage("tests", (*pytest, *tests), 80),
        Stage("walk", script("gpu_walk.py"), 50),
        *(Stage(f"fine-tuning, {shape}", phase_2(shape, "no", n), cap) for shape, n, cap in shapes),
        Stage("extraction", script("bench_extract.py", "--repeats", "2"), 55),
        Stage("training", script("gpu_rates.py", "training"), 40),
        Stage("contest", phase_2(shapes[0][0], "alone"), 90),
        *([Stage("both phases", own, SECONDS_OF_DATA)] if data else []),
    ]


def run_stage(stage: Stage, folder: Path, seconds_left: float) -> dict[str, Any]:
    """Run a stage to its end or its time limit; returns its result."""
    log, figures = folder / "log.txt", folder / "figures.json"
    figures.unlink(missing_ok=True)
    command = [part.replace("{json}", str(figures)) for part in stage.command]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    started, cap = time.perf_counter(), min(stage.cap, seconds_left)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},  # lines in their order
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            outcome = "failed" if process.wait(cap) else "ok"
        except subprocess.TimeoutExpired:
            outcome = "capped"
        finally:  # its workers too, even if this program is interrupted
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = log.read_text(errors="replace").splitlines()
    found: dict[str, Any] = {
        "outcome": outcome,
        "seconds": round(time.perf_counter() - started, 1),
        "cap": round(cap, 1),
    }
    found["figures"] = json.loads(figures.read_text()) if figures.exists() else {}
    found["last line"] = lines[-1] if lines else ""
    return found if outcome == "ok" else found | {"output": lines[-LAST_LINES:]}


def run_stages(planned: list[Stage], report: Path, found: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Run all stages, even if some fail, and write the results after each."""
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        for stage in planned:
            print(f"{stage.name}: at most {stage.cap:.0f} s …", end=" ", flush=True)
            try:
                outcome = run_stage(stage, Path(folder), max(0.1, until - time.monotonic()))
            except (OSError, ValueError) as error:  # no such program, or truncated results
                outcome = {"outcome": "failed", "seconds": 0.0, "figures": {}, "output": [repr(error)]}
            found["stages"][stage.name] = outcome
            write(report, found)
            print(f"{outcome['outcome']} in {outcome['seconds']:.1f} s", flush=True)
            if outcome["outcome"] != "ok":
                print("\n".join(f"    {line}" for line in outcome["output"][-12:]), flush=True)
    return found


def write(path: Path, found: dict[str, Any]) -> None:
    """Write the report in one piece: a reader never sees half of it."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(found, indent=1))
    unfinished.replace(path)


def performance_lines(found: dict[str, Any]) -> list[str]:
    """The results, as a section of docs/performance.md."""
    figures = {name: outcome["figures"] for name, outcome in found["stages"].items()}
    about, walk = figures.get("machine", {}), figures.get("walk", {})
    versions = ", ".join(f"{name} {about[name]}" for name in ("torch", "CUDA", "cuDNN") if about.get(name))
    lines = [f"## On {about.get('GPU', 'a machine without a GPU')}", "", f"`make gpu`, {versions}.", ""]
    rates = {name: about[name] for name in about if name.endswith("/s")}
    if rates:
        lines += [", ".join(f"{name}: {value}" for name, value in rates.items()) + ".", ""]
    lines += ["| stage | outcome | seconds | |", "|---|---|---|---|"]
    for name, outcome in found["stages"].items():
        tests = re.search(r"\d+ (passed|failed).*(?= in )", outcome.get("last line", ""))
        said = tests[0] if tests else ""
        if name == "walk" and walk:
            held = sum(check["holds"] for check in walk["checks"])
            said = f"{len(walk['seconds'])} commands, {held} of {len(walk['checks'])} comparisons hold"
        lines.append(f"| {name} | {outcome['outcome']} | {outcome['seconds']} | {said} |")
    for of_stage in figures.values():
        for shape, ms in of_stage.get("ms an iteration", {}).items():
            lines += ["", "| " + shape + " | ms an iteration | iterations/s |", "|---|---|---|"]
            lines += [f"| {what} | {value:.3f} | {1000 / value:,.0f} |" for what, value in ms.items()]
            read = of_stage.get("GB/s", {}).get(shape, {})
            lines += [
                "",
                "Read: " + ", ".join(f"{what} {rate:,.0f} GB/s" for what, rate in read.items()) + ".",
            ]
        for kind in ("extraction", "training", "contest", "both phases"):
            rows = of_stage.get(kind, [])
            columns = list(rows[0]) if rows else []
            lines += ["", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"] if rows else []
            lines += ["| " + " | ".join(_cell(row[column]) for column in columns) + " |" for row in rows]
    return lines


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.2f}" if value < 10 else f"{value:,.0f}"


def main() -> int:
    """Run as the options say; returns the exit code."""
    parser = argparse.ArgumentParser(description="Try everything on a GPU, in at most eight minutes.")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try the script itself")
    parser.add_argument("--tiny", action="store_true", help="less of everything, to see that it runs")
    parser.add_argument(
        "--data", help="folder of CIFAR-10 as images: both phases on it too, six minutes more"
    )
    parser.add_argument("--wheels", help="folder of wheels, if there is no network")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="file for what is found")
    options = parser.parse_args()
    started = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    python, lacking = complete_python(options.wheels, ROOT / ".venv-gpu")
    if lacking:
        print(f"gpu: {lacking}", file=sys.stderr)
    found = {"python": sys.version, "device": options.device, "lacking": lacking, "stages": {}}
    left = SECONDS + (SECONDS_OF_DATA if options.data else 0) - (time.monotonic() - started)
    planned = stages(python, options.device, options.tiny, options.data)
    run_stages(planned, options.out, found, left)
    print("\n".join(["", *performance_lines(found), "", f"all of it: {options.out}"]))
    outcomes = [outcome["outcome"] for outcome in found["stages"].values()]
    return 1 if lacking or set(outcomes) != {"ok"} else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
