"""Every command on the embedded digits, on a device and on the CPU; a stage of gpu.py.

Usage: python benchmarks/gpu_walk.py --device cuda --json FILE. Two devices round differently, so Phase I ends
in a different network on each: those are compared by accuracy, and everything else is compared on the
CPU's network and store. FILE has the results so far, even if the walk is stopped early.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import pandas as pd
import torch
from click.testing import CliRunner

from cli import main as tailcache

METHODS = ("fsa", "crt", "lws", "weight-balancing", "tau-norm", "h2t", "mixup", "tailcalib", "isda", "mislas")
POINTS = {"Phase I": 8, "evaluate": 1, "finetune": 2, "sweep": 2}  # most points of accuracy between devices
OF_HEAD = 2e-3  # most difference between heads of two devices, as a fraction of the largest weight
FACTS = (
    "head_classes",
    "tail_classes",
    "confusing_classes",
    "empty_specific_percent",
    "empty_generic_percent",
)


class Walk:
    """Commands that were run, and what was compared.

    Attributes:
        seconds: time of each command.
        checks: what was compared, what was found, and whether it passed.
    """

    def __init__(self, device: str, folder: Path, tiny: bool, report: Path | None):
        self.device, self.folder, self.tiny, self._report = device, folder, tiny, report
        self.seconds: dict[str, float] = {}
        self.checks: list[dict[str, Any]] = []

    def command(self, name: str, *arguments: object) -> str:
        """Run the program; returns its output. A failure is recorded, and the walk continues."""
        started = time.perf_counter()
        result = CliRunner().invoke(tailcache, [str(a) for a in arguments])
        self.seconds[name] = round(time.perf_counter() - started, 2)
        print(f"{self.seconds[name]:7.2f} s  {name}", flush=True)
        self._keep()
        if result.exit_code != 0:
            said = (result.stderr.strip() or repr(result.exception)).splitlines()[-1]
            self.check(name, False, f"exit code {result.exit_code}: {said}")
        return result.stdout

    def check(self, what: str, holds: bool, found: object) -> None:
        """Record a comparison, and whether it passed."""
        self.checks.append({"what": what, "holds": bool(holds), "found": str(found)})
        if not holds:
            print(f"DIFFERS: {what}: {found}", flush=True)
        self._keep()

    def _keep(self) -> None:
        if self._report is not None:
            self._report.write_text(json.dumps({"seconds": self.seconds, "checks": self.checks}))

    def close(self, kind: str, what: str, one: float, other: float) -> None:
        """Record whether two accuracies in % are close."""
        self.check(what, abs(one - other) <= POINTS[kind], f"{one:.2f} and {other:.2f}")

    def attempt(self, part: Any) -> None:
        """A part of the walk; if it breaks, the others still run."""
        try:
            part(self)
        except Exception as error:  # whatever it is, it is what this is for
            self.check(part.__name__, False, repr(error))

    def devices(self) -> dict[str, str]:
        """Folders, and the device of each."""
        return {"here": "cpu", "there": self.device}


def phase_1(walk: Walk) -> None:
    """Train on both; extract the CPU's network on both, and verify the stores."""
    overall, epochs = {}, 1 if walk.tiny else 10
    network = (
        ["--arch", "resnet8", "--width", 4] if walk.tiny else ["--arch", "resnet18-cifar", "--width", 16]
    )
    ckpt = walk.folder / "here" / "phase1" / "checkpoint.pt"
    for name, device in walk.devices().items():
        out, on = walk.folder / name, ["--device", device]
        options = ["--imbalance-factor", 20, "--val-per-class", 5, "--epochs", epochs, "--batch-size", 64]
        walk.command(f"train, {name}", "train", *network, *options, *on, "--out", out / "phase1")
        walk.command(f"extract, {name}", "extract", "--ckpt", ckpt, "--store", out / "feats.zarr", *on)
        told = walk.command(f"evaluate, {name}", "evaluate", "--ckpt", ckpt, *on, "--json")
        overall[name] = json.loads(told)["overall"]
    walk.close("evaluate", "one network on two devices, test accuracy", *overall.values())
    for name, device in zip(("here", "there"), (walk.device, "cpu"), strict=True):
        sample = ["--sample", 20, "--ckpt", ckpt, "--device", device]
        walk.command(
            f"verify {name} on {device}", "store", "verify", walk.folder / name / "feats.zarr", *sample
        )
    planned = ["--ckpt", ckpt, "--store", walk.folder / "planned.zarr", "--seconds", 0.1]
    walk.command(f"store plan on {walk.device}", "store", "plan", *planned, "--device", walk.device)
    other = walk.folder / "there" / "phase1" / "checkpoint.pt"
    told = walk.command("evaluate, trained there", "evaluate", "--ckpt", other, "--device", "cpu", "--json")
    walk.close("Phase I", "Phase I, test accuracy", overall["here"], json.loads(told)["overall"])


def finetune(walk: Walk, name: str, run: str, *options: object) -> None:
    """Fine-tune from the CPU's store, into a run folder."""
    iterations, device = 40 if walk.tiny else 640, walk.devices()[name]
    store = ["--store", walk.folder / "here" / "feats.zarr", "--iterations", iterations, "--device", device]
    out = walk.folder / name / run
    walk.command(f"finetune {run}, {name}", "finetune", *store, "--out", out, *options)


def phase_2(walk: Walk) -> None:
    """Every kind of step, on both devices from one store."""
    for method in METHODS[:1] if walk.tiny else METHODS:
        for name in walk.devices():
            finetune(walk, name, method, "--method", method)
        here, there = (walk.folder / name / method for name in walk.devices())
        heads = [torch.load(run / "head.pt", weights_only=True) for run in (here, there)]
        largest = heads[0]["weight"].abs().max()
        apart = max(float((heads[0][key] - heads[1][key]).abs().max() / largest) for key in heads[0])
        walk.check(f"{method}: heads of two devices, of the largest weight", apart <= OF_HEAD, f"{apart:.1e}")
        facts = [json.loads((run / "config.json").read_text())["facts"] for run in (here, there)]
        plans = [{key: of_run.get(key) for key in FACTS} for of_run in facts]
        walk.check(f"{method}: plans", plans[0] == plans[1], "equal" if plans[0] == plans[1] else plans)
        overall = [json.loads((run / "summary.json").read_text())["overall"] for run in (here, there)]
        walk.close("finetune", f"{method}: test accuracy", *overall)


def residencies(walk: Walk) -> None:
    """Every residency of the maps, and the same seed again."""
    heads = {}
    for residency in ("host", "stream", "device", "host"):
        run = f"fsa-{residency}{'-again' * (residency in heads)}"
        finetune(walk, "there", run, "--method", "fsa", "--residency", residency)
        heads[run.removeprefix("fsa-")] = (walk.folder / "there" / run / "head.pt").read_bytes()
    for other in ("stream", "host-again"):
        walk.check(f"head.pt of host and {other}", heads["host"] == heads[other], "compared byte by byte")
    same = heads["host"] == heads["device"]
    walk.check("head.pt of host and device", True, "the same bytes" if same else "other bytes")


def depths(walk: Walk) -> None:
    """Fusion after an earlier block, whose later blocks run on the device."""
    store, ckpt = walk.folder / "deep.zarr", walk.folder / "here" / "phase1" / "checkpoint.pt"
    walk.command("extract --layers", "extract", "--ckpt", ckpt, "--store", store, "--layers", "layer2")
    heads, iterations = [], 10 if walk.tiny else 320
    for name, device in walk.devices().items():
        out = walk.folder / name / "deep"
        on = ["--iterations", iterations, "--device", device, "--out", out, "--method", "fsa"]
        walk.command(
            f"finetune --fuse-after, {name}", "finetune", "--store", store, "--fuse-after", "layer2", *on
        )
        heads.append(torch.load(out / "head.pt", weights_only=True)["weight"])
    apart = float((heads[0] - heads[1]).abs().max() / heads[0].abs().max())
    walk.check("--fuse-after: heads of two devices, of the largest weight", apart <= OF_HEAD, f"{apart:.1e}")


def contests(walk: Walk) -> None:
    """The contest on the device; on the CPU too, of a few methods."""
    few, scores = "fsa,crt,tailcalib,logit-adjustment", []
    for name, device in walk.devices().items():
        methods = ["--methods", few] if walk.tiny or device == "cpu" else []
        out, seeds = walk.folder / name / "contest", 1 if walk.tiny else 2
        on = ["--iterations", 10 if walk.tiny else 640, "--device", device, "--seeds", seeds, "--out", out]
        store = ["--store", walk.folder / "here" / "feats.zarr"]
        walk.command(f"contest, {name}", "contest", *store, *methods, *on)
        table = pd.read_csv(out / "standings.csv").set_index("entry")
        scores.append(table.loc[few.split(","), "val_balanced_accuracy_mean"])
    apart = (scores[0] - scores[1]).abs().max()
    walk.check("contest: val accuracies", apart <= POINTS["sweep"], f"at most {apart:.2f} points apart")


def many(walk: Walk) -> None:
    """A sweep on both devices, and `analyze`."""
    of_device, seeds = {}, 1 if walk.tiny else 3
    store = ["--store", walk.folder / "here" / "feats.zarr", "--iterations", 20 if walk.tiny else 320]
    for name, device in walk.devices().items():
        out = walk.folder / name / "sweep"
        options = ["--grid", "lr=0.001,0.01", "--seeds", seeds, "--device", device, "--out", out]
        walk.command(f"sweep, {name}", "sweep", *store, *options)
        of_device[name] = pd.read_csv(out / "results.csv")["test_overall"]
    apart = (of_device["here"] - of_device["there"]).abs().max()
    walk.check("sweep: test accuracies", apart <= POINTS["sweep"], f"at most {apart:.2f} points apart")
    runs = [walk.folder / name / "fsa" for name in walk.devices()]
    for run in runs:
        walk.command(f"evaluate {run.parent.name}/fsa", "evaluate", "--ckpt", run / "checkpoint.pt")
    walk.command("analyze", "analyze", runs[1], "--out", walk.folder / "report")


@click.command()
@click.option("--device", default="cuda", show_default=True)
@click.option("--tiny", is_flag=True, help="less of everything, to see that it runs")
@click.option("--json", "report", type=click.Path(path_type=Path), help="file for what is found")
def main(device: str, tiny: bool, report: Path | None) -> None:
    """Run the walk; exit code 1 if anything failed or differs."""
    with tempfile.TemporaryDirectory() as folder:
        walk = Walk(device, Path(folder), tiny, report)
        for part in (phase_1, phase_2, residencies, depths, contests, many):
            walk.attempt(part)
    wrong = [check for check in walk.checks if not check["holds"]]
    print(f"{len(walk.seconds)} commands, {len(walk.checks)} comparisons, {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
