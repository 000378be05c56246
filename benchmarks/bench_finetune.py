"""Speed of Phase II compared with the straightforward loop and with what memory and arithmetic allow.

Run with `make bench-finetune`, on idle cores, or with `--device cuda`. Two synthetic stores: one shaped
like ResNet-18's on CIFAR (12,406 maps of 4×4×512, 10 classes), one like ResNet-50's on ImageNet-LT (8,192
maps of 7×7×2048, 1,000 classes). All candidates of a shape take turns, so that a disturbance does not hit
only one of them; medians.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from rich.progress import Progress
from straightforward import StraightforwardLoop

from extract.cam import class_activation_maps
from extract.config import NetworkConfig
from extract.device import Compute, keep_freed_memory, make_deterministic, resolve_device, use_device
from extract.networks.registry import build_network
from finetune.config import FinetuneConfig
from finetune.contest.choosing import choosing_on
from finetune.contest.config import ContestConfig
from finetune.contest.field import Field
from finetune.heads.threads import single_threaded
from finetune.loading.drawn_ahead import iterations_at_once
from finetune.loading.residency import uploaded
from finetune.loading.window import WindowMaker
from finetune.methods.registry import METHODS
from finetune.mixing.fusion import fuse
from finetune.sweep.processes import Processes
from finetune.training.head_pool import HeadPool
from finetune.training.inputs import head_options, plan_inputs
from finetune.training.trainer import LoadedStore, Trainer
from store.layout import store_layout
from store.reader import FeatureStore
from store.spec import StoreSpec
from store.writer import write_store

BATCH = 256
RUN = 6400  # iterations of a run by default
WINDOW = FinetuneConfig(store="").window
HEADS = 64
# Beside fsa: no new samples, other new ones, and a loss instead of them.
OTHERS = ("balanced-softmax", "h2t", "mixup", "remix", "tailcalib", "isda")


@dataclass(frozen=True)
class Shape:
    """A synthetic store; iterations timed at once, on a CPU and on a GPU, and of its contest's heads."""

    name: str
    n_rows: int
    side: int
    channels: int
    n_classes: int
    iterations: tuple[int, int]
    of_contest: int = RUN


CIFAR, IMAGENET = "ResNet-18 on CIFAR-10-LT, 12,406 × 4×4×512", "ResNet-50 on ImageNet-LT, 8,192 × 7×7×2048"
SHAPES = {
    "resnet18": Shape(f"{CIFAR}, 10 classes", 12_406, 4, 512, 10, (2560, 6400)),
    "resnet50": Shape(f"{IMAGENET}, 1,000 classes", 8192, 7, 2048, 1000, (128, 1280)),
    "tiny": Shape("no network, 300 × 3×3×8, 4 classes", 300, 3, 8, 4, (128, 128), 64),
}


def make_store(path: Path, shape: Shape) -> FeatureStore:
    """A finished store of random maps, with two values in five zero, and long-tailed labels."""
    generator = np.random.default_rng(0)
    k, c, side = shape.n_classes, shape.channels, shape.side
    share = 100.0 ** (-np.arange(k) / (k - 1))
    label = np.sort(
        np.concatenate([np.arange(k), generator.choice(k, shape.n_rows - k, p=share / share.sum())])
    )
    weight = (generator.normal(size=(k, c)) / np.sqrt(c)).astype(np.float32)
    rows = {"classifier/weight": weight, "classifier/bias": np.zeros(k, np.float32)}
    n_rows = {"train": shape.n_rows, "val": k, "test": k}
    for split, n in n_rows.items():
        rows |= {f"{split}/label": label[:n], f"{split}/sample_index": np.arange(n)}
        rows |= {f"{split}/view": np.zeros(n)}
    axes = {split: {"N": n, "H": side, "W": side, "C": c} for split, n in n_rows.items()}
    plan = StoreSpec(store_layout(axes, k, "float16", BATCH), "float16", [str(i) for i in range(k)], {}, {})
    with write_store(path, plan, resume=False, overwrite=False) as writer:
        writer.write_known(rows)
        for start in range(0, shape.n_rows, BATCH):
            n = min(BATCH, shape.n_rows - start)
            maps = np.maximum(generator.standard_normal((n, side, side, c), np.float32) + 0.25, 0)
            raw = np.einsum("bhwc,bc->bhw", maps, weight[label[start : start + n]])
            low, high = raw.min((1, 2), keepdims=True), raw.max((1, 2), keepdims=True)
            block = {"pooled": maps.mean((1, 2)), "feature_map": maps, "cam": (raw - low) / (high - low)}
            writer.write("train", start, block)
        for start in range(0, k, BATCH):
            for split in ("val", "test"):
                writer.write(split, start, {"pooled": np.ones((min(BATCH, k - start), c), np.float32)})
        writer.finish()
    return FeatureStore(path)


def candidates(
    store: FeatureStore, shape: Shape, device: torch.device
) -> dict[str, tuple[Callable[[], object], int]]:
    """Functions to time, and the iterations of one call of each."""
    on_gpu, n_classes = device.type == "cuda", shape.n_classes
    iterations = shape.iterations[on_gpu]
    config = FinetuneConfig("", method="fsa", iterations=iterations, eval_every=iterations).resolved(
        n_classes
    )
    straightforward = StraightforwardLoop(store, config, device)

    def run(
        residency: str, n_heads: int, memory: float | None = None, method: str = "fsa", iterations=iterations
    ) -> tuple[Callable[[], object], int]:
        of_method = FinetuneConfig("", method=method, iterations=iterations, eval_every=iterations)
        one = replace(of_method.resolved(n_classes), residency=residency, memory=memory)
        configs = [replace(one, lr=one.lr / (i + 1)) for i in range(n_heads)]
        with single_threaded() as threads:
            loaded = LoadedStore.open(store, config.shot_rule, device, threads)
            loaded.prepare_maps(configs[0])
            plan_inputs(configs[0], store, loaded.common)  # scores once, with threads that end here

        def steps() -> None:
            with single_threaded() as threads:
                loaded.threads = threads
                trainer = Trainer(configs, loaded)
                trainer.evaluate()
                times = [(0, time.perf_counter())]
                times += [(trainer.iteration, time.perf_counter()) for _ in trainer.run(iterations)]
                # On a GPU, the first window is recorded, once per run.
                (first, started), (last, ended) = times[1 if on_gpu else 0], times[-1]
                steps.seconds = (ended - started) * iterations / (last - first)

        return steps, iterations

    held = ("device", "host") if on_gpu else ("host",)  # on a CPU they are the same
    parts, quarter = window_parts(store, config, device), store.map_bytes / 4 / 2**30
    many = {f"{HEADS} heads, {held[0]}": run(held[0], HEADS)} if n_classes < 100 else {}
    whole = {"device": {"iterations": RUN}} if on_gpu else {}  # as long as a run
    return {
        "straightforward loop": (straightforward.iteration, 1),
        **{residency: run(residency, 1, **whole.get(residency, {})) for residency in held},
        "stream": run("stream", 1),
        "stream, memory for 1/4": run("stream", 1, quarter),
        **many,
        **{f"{method}, {held[0]}": run(held[0], 1, method=method) for method in OTHERS},
        **parts,
    }


def window_parts(
    store: FeatureStore, config: FinetuneConfig, device: torch.device
) -> dict[str, tuple[Callable[[], object], int]]:
    """The parts of a window, lower bounds that memory and arithmetic set, and the iterations of a call."""
    with single_threaded() as threads:
        loaded = LoadedStore.open(store, config.shot_rule, device, threads)
        loaded.prepare_maps(replace(config, residency="device"))
        inputs = plan_inputs(config, store, loaded.common)
        draw = METHODS["fsa"].sampling.draw
        window = WindowMaker(draw, inputs, loaded.features, loaded.maps[None]).make((0, WINDOW))
        window.arrive()
        options = head_options(config, store, inputs)
    table = uploaded(store, device)
    vectors = torch.from_numpy(window.plan.mix.vectors).to(device)
    copied = torch.empty(vectors.numel() // WINDOW, table.shape[1], dtype=table.dtype, device=device)
    weight = torch.tensor(options.weight, device=device)
    velocity = torch.zeros_like(weight)
    logits = torch.empty(WINDOW, window.label.shape[1], len(weight), device=device)
    pooled = window.pooled[:, :, : weight.shape[1]].contiguous()

    def copy() -> None:
        for of_iteration in vectors.flatten(1):
            torch.index_select(table, 0, of_iteration, out=copied)

    def step() -> None:
        with single_threaded() as threads:
            stacks = HeadPool([options], device, threads)
            if device.type == "cuda":
                stacks.train_on(window).cpu()  # records it; waits for the last step
            started = time.perf_counter()
            stacks.train_on(window).cpu()
            step.seconds = time.perf_counter() - started

    def fusion() -> None:
        fuse(table, vectors)

    # Read in each iteration, the same by both.
    fusion.bytes = copy.bytes = vectors.numel() * table.shape[1] * table.element_size() / WINDOW

    def products() -> None:
        for x, z in zip(pooled, logits, strict=True):
            torch.mm(x, weight.T, out=z)
            velocity.addmm_(z.T, x, beta=0.9)
        velocity.zero_()

    there, n_drawn = inputs.on(device), iterations_at_once(inputs)
    return {
        "drawing the plan": (lambda: draw(inputs, 0, WINDOW), WINDOW),
        "drawing it by torch, there": (lambda: draw(there, 0, n_drawn), n_drawn),
        "fusion": (fusion, WINDOW),
        "copying the drawn bytes": (copy, WINDOW),
        "step": (step, WINDOW),
        "its two matrix products": (products, WINDOW),
    }


def end_to_end_step(compute: Compute) -> Callable[[], object]:
    """Forward of 128 images through ResNet-18, and their class activation maps."""
    network, form = build_network(NetworkConfig("resnet18-cifar"), 10).eval(), compute.memory_format
    network.to(compute.device, memory_format=form)
    images = torch.rand(128, 3, 32, 32).to(compute.device, memory_format=form)
    label = torch.zeros(128, dtype=torch.int64, device=compute.device)

    def step() -> None:
        with torch.inference_mode():
            maps = network.features(images)
            class_activation_maps(maps.permute(0, 2, 3, 1), network.classifier.weight, label)

    return step


def contest_seconds(store: FeatureStore, shape: Shape, device: torch.device) -> tuple[int, float]:
    """Heads and seconds of the whole contest, but for the winner's run."""
    with tempfile.TemporaryDirectory() as out, single_threaded() as threads:
        config = ContestConfig((str(store.path),), out, iterations=shape.of_contest)
        started = time.perf_counter()
        loaded = LoadedStore.open(store, config.shot_rule, device, threads)
        quiet = Progress(disable=True)
        field = Field(config, [loaded], [choosing_on(config, loaded, quiet)])
        field.run(Processes(), quiet, None)
        return len(field.finish(quiet).heads), time.perf_counter() - started


def measure(
    timed: dict[str, tuple[Callable[[], object], int]], repeats: int, device: torch.device
) -> pd.Series:
    """Median milliseconds per iteration of each, in turns; the first round is a warm-up."""
    taken = []
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    for repeat in range(-1, repeats):
        for name, (call, iterations) in timed.items():
            wait()
            started = time.perf_counter()
            for _ in range(5 if iterations == 1 else 1):
                call()
            wait()
            spent = (time.perf_counter() - started) / (5 if iterations == 1 else 1)
            spent = getattr(call, "seconds", spent)
            if repeat >= 0:
                taken.append((name, 1000 * spent / iterations))
    frame = pd.DataFrame(taken, columns=["name", "ms"])
    return frame.groupby("name", sort=False)["ms"].median()


def report(shape: Shape, ms: pd.Series, device: torch.device) -> None:
    """Print times, and ratios with their goals."""
    where = f"on {torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    print(f"\n{shape.name}; {WINDOW} iterations a window, {where}{torch.get_num_threads()} threads, medians")
    table = pd.DataFrame({"ms an iteration": ms.round(3), "iterations/s": (1000 / ms).round(0)})
    print(table.to_string())
    pairs = [
        ("straightforward loop / host", "straightforward loop", "host", 1, "at least 5 (first shape)"),
        ("fusion / copying the drawn bytes", "fusion", "copying the drawn bytes", 1, "at most 2 (second)"),
        ("step / its two matrix products", "step", "its two matrix products", 1, "at most 1.2 (second)"),
        ("stream / host", "stream", "host", 1, "at most 1.3"),
        ("stream, memory for 1/4 / host", "stream, memory for 1/4", "host", 1, "none"),
        ("device / host", "device", "host", 1, "none"),
        (f"{HEADS} heads / {HEADS} runs", f"{HEADS} heads, host", "host", HEADS, "at most 0.25 (first)"),
        (f"{HEADS} heads / {HEADS} runs", f"{HEADS} heads, device", "device", HEADS, "none"),
    ]
    held = "host" if "host" in ms else "device"
    for method in OTHERS[1:]:
        goal = "at most 1.5 (first)" if method in ("h2t", "mixup") else "none"
        rest = (f"{method}, {held}", f"{OTHERS[0]}, {held}", 1, goal)
        pairs.append((f"{method} / {OTHERS[0]}", *rest))
    for what, above, below, times, goal in pairs:
        if above in ms:
            print(f"  {what}: {ms[above] / ms[below] / times:.2f}  (goal: {goal})")
    if "end to end" in ms:
        print(f"  end to end / host: {ms['end to end'] / ms['host']:.0f}")


@click.command()
@click.option("--repeats", default=7, show_default=True)
@click.option("--shape", "names", multiple=True, type=click.Choice(SHAPES), default=["resnet18", "resnet50"])
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda or cuda:N")
@click.option("--contest", type=click.Choice(["too", "alone", "no"]), default="too", show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="file for the figures")
def main(repeats: int, names: tuple[str, ...], device: str, contest: str, json_path: Path | None) -> None:
    """Make the stores, time everything, print the tables."""
    keep_freed_memory()
    make_deterministic()
    where, figures = use_device(resolve_device(device)), {"ms an iteration": {}, "GB/s": {}, "contest": []}

    def keep() -> None:  # after each part: the next one may be stopped
        if json_path is not None:
            json_path.write_text(json.dumps(figures))

    for name in names:
        shape = SHAPES[name]
        with tempfile.TemporaryDirectory() as folder:
            store = make_store(Path(folder) / "s.zarr", shape)
            if contest != "alone":
                timed = candidates(store, shape, where)
                if name == "resnet18":
                    timed["end to end"] = (end_to_end_step(Compute(where, "fp32", 128, workers=0)), 1)
                ms = measure(timed, repeats, where)
                report(shape, ms, where)
                figures["ms an iteration"][shape.name] = ms.to_dict()
                read = {name: call.bytes for name, (call, _) in timed.items() if hasattr(call, "bytes")}
                figures["GB/s"][shape.name] = {name: n / ms[name] / 1e6 for name, n in read.items()}
                rates = ", ".join(f"{name} {rate:.1f}" for name, rate in figures["GB/s"][shape.name].items())
                print(f"  GB/s: {rates}")
                keep()
            if contest == "alone" or (contest == "too" and name == "resnet18"):
                n_heads, seconds = contest_seconds(store, shape, where)
                figures["contest"].append({"shape": shape.name, "heads": n_heads, "seconds": seconds})
                print(f"  the whole contest: {n_heads} heads, {seconds:.0f} s  (goal: at most 600)")
                keep()


if __name__ == "__main__":
    main()
