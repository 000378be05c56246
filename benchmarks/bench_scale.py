"""How time and memory grow with rows and classes, up to iNaturalist 2018's 437,513 images.

Run with `make bench-scale`, on idle cores, with 12 GB of disk. Each size runs in its own process. The peak
of memory is the process's resident set, mapped pages of files included. Preparing is compared with
one product of the same rows with the FC layer, and its softmax, in the same precision.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from rich.progress import Progress
from scale_store import make_store

from extract.device import keep_freed_memory
from finetune.compare.analyze import analyze
from finetune.compare.config import AnalyzeConfig
from finetune.config import FinetuneConfig
from finetune.heads.threads import Threads, single_threaded
from finetune.methods.registry import METHODS
from finetune.sampling.confusion import ROWS_AT_ONCE
from finetune.train import finetune
from finetune.training.inputs import plan_inputs, posthoc_layer
from finetune.training.trainer import LoadedStore, Trainer
from store.reader import FeatureStore

SIZES = ("12000,10", "115000,1000", "437000,8142")
ITERATIONS, HEADS, RUNS = 64, 10, 5
GIB = 2**30
QUIET = Progress(disable=True)


@dataclass
class Stages:
    """Seconds and peak memory of each stage."""

    rows: list[dict] = field(default_factory=list)

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Measure the block as one stage."""
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        started = time.perf_counter()
        yield
        seconds, status = time.perf_counter() - started, Path("/proc/self/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        self.rows.append({"stage": name, "seconds": seconds, "peak GiB": peak * 1024 / GIB})


def measure(path: Path) -> list[dict]:
    """Measure every stage of Phase II on one store."""
    keep_freed_memory()
    stages, config = Stages(), FinetuneConfig(str(path), method="fsa", device="cpu", iterations=ITERATIONS)
    with single_threaded() as threads:
        with stages.measured("opening"):
            store = FeatureStore(path)
        fsa = config.resolved(len(store.class_names))
        with stages.measured("reading all but maps"):
            loaded = LoadedStore.open(store, "decoupling", torch.device("cpu"), threads)
        with stages.measured("preparing FSA"):
            inputs = plan_inputs(fsa, store, loaded.common)
        with stages.measured("(its product and softmax alone)"):
            needed = np.flatnonzero(np.isin(loaded.common.label, inputs.head_tail.tail))
            bare_product(store, needed, threads)
        with stages.measured("reading maps"):
            loaded.prepare_maps(fsa)
        with stages.measured(f"{ITERATIONS} iterations"):
            _take_steps([fsa], loaded)
        for method in (name for name in METHODS if METHODS[name].compute is not None):
            with stages.measured(method):
                posthoc_layer(replace(config, method=method).resolved(len(store.class_names)), store)
        with stages.measured(f"{HEADS} heads, {ITERATIONS} iterations"):
            _take_steps([replace(fsa, lr=fsa.lr * (1 + i)) for i in range(HEADS)], loaded)
        del loaded, store, inputs
    runs = [str(path.with_name(f"run{i}")) for i in range(RUNS)]
    for i, out in enumerate(runs):  # one configuration each, since each has its own columns, points and pairs
        one = replace(config, method="plain", iterations=1, out=out, lr=0.001 * (1 + i))
        if i == 0:
            with stages.measured("a whole run of one step, written"):
                finetune(one, QUIET)
        else:
            finetune(one, QUIET)
    with stages.measured(f"analysing {RUNS} runs"):
        analyze(AnalyzeConfig(tuple(runs), str(path.with_name("report"))))
    return stages.rows


def bare_product(store: FeatureStore, rows: np.ndarray, threads: Threads) -> None:
    """Compute scores in blocks and discard them: the least that preparing must do."""
    weight, bias = (torch.tensor(part).double() for part in store.classifier)
    weight, pooled = weight.T, store.read("train").pooled

    def score(start: int) -> None:
        block = torch.from_numpy(pooled[rows[start : start + ROWS_AT_ONCE]]).double()
        torch.addmm(bias, block, weight).softmax(dim=1)

    threads.each(score, range(0, len(rows), ROWS_AT_ONCE))


def _take_steps(configs: list[FinetuneConfig], loaded: LoadedStore) -> None:
    trainer = Trainer(configs, loaded)
    trainer.evaluate()
    for _ in trainer.run(ITERATIONS):
        pass


@click.command()
@click.option("--size", "sizes", multiple=True, default=SIZES, show_default=True, help="rows,classes")
@click.option("--store", "path", help="measure this store, and print JSON: what the command itself calls")
def main(sizes: tuple[str, ...], path: str | None) -> None:
    """Print seconds and peak memory of every stage for every size."""
    if path is not None:
        click.echo(json.dumps(measure(Path(path))))
        return
    tables = {}
    for size in sizes:
        n_rows, n_classes = map(int, size.split(","))
        with tempfile.TemporaryDirectory(dir=".") as folder:
            store = make_store(Path(folder), n_rows, n_classes)
            command = [sys.executable, __file__, "--store", str(store)]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        title = f"{n_rows:,} rows, {n_classes:,} classes"
        tables[title] = pd.DataFrame(json.loads(found.splitlines()[-1])).set_index("stage")
    click.echo(pd.concat(tables, axis=1).to_string(float_format="%.2f"))


if __name__ == "__main__":
    main()
