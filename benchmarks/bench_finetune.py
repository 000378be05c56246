"""How fast Phase II is, beside the straightforward loop and beside what memory and arithmetic allow.

Run through `make bench-finetune`, on idle cores. Two synthetic stores: one shaped like ResNet-18's on CIFAR
(12,406 maps of 4×4×512, 10 classes), one like ResNet-50's on ImageNet-LT (8,192 maps of 7×7×2048, 1,000
classes). All contestants of a shape take turns, lest a disturbance hit one of them alone; medians.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy, linear

from extract.cam import class_activation_maps
from extract.config import NetworkConfig
from extract.device import keep_freed_memory
from extract.networks import build_network
from finetune.config import FinetuneConfig
from finetune.fusion import fuse
from finetune.group import Bench, Group
from finetune.methods import METHODS
from finetune.prepare import head_options, prepare_drawing
from finetune.stacks import Stacks
from finetune.threads import single_threaded
from finetune.window import WindowMaker
from store.layout import store_layout
from store.plan import StorePlan
from store.reader import FeatureStore
from store.writer import write_store

BATCH = 256
WINDOW = FinetuneConfig(store="").window
HEADS = 64


@dataclass(frozen=True)
class Shape:
    """A synthetic store, and how many iterations are timed at once."""

    name: str
    n_rows: int
    side: int
    channels: int
    n_classes: int
    iterations: int


SHAPES = {
    "resnet18": Shape("ResNet-18 on CIFAR-10-LT, 12,406 × 4×4×512, 10 classes", 12_406, 4, 512, 10, 2560),
    "resnet50": Shape("ResNet-50 on ImageNet-LT, 8,192 × 7×7×2048, 1,000 classes", 8192, 7, 2048, 1000, 128),
}


def make_store(path: Path, shape: Shape) -> FeatureStore:
    """A finished store of random maps, two values in five zero, and of labels with a long tail."""
    generator = np.random.default_rng(0)
    k, c, side = shape.n_classes, shape.channels, shape.side
    share = 100.0 ** (-np.arange(k) / (k - 1))
    label = np.sort(
        np.concatenate([np.arange(k), generator.choice(k, shape.n_rows - k, p=share / share.sum())])
    )
    weight = (generator.normal(size=(k, c)) / np.sqrt(c)).astype(np.float32)
    rows = {"classifier/weight": weight, "classifier/bias": np.zeros(k, np.float32)}
    n_rows = {"train": shape.n_rows, "test": k}
    for split, n in n_rows.items():
        rows |= {f"{split}/label": label[:n], f"{split}/sample_index": np.arange(n)}
        rows |= {f"{split}/view": np.zeros(n)}
    axes = {split: {"N": n, "H": side, "W": side, "C": c} for split, n in n_rows.items()}
    plan = StorePlan(store_layout(axes, k, "float16", BATCH), "float16", [str(i) for i in range(k)], {}, {})
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
            writer.write("test", start, {"pooled": np.ones((min(BATCH, k - start), c), np.float32)})
        writer.finish()
    return FeatureStore(path)


class StraightforwardLoop:
    """Algorithm 1 as one would write it first: an iteration at a time, whole maps, autograd."""

    def __init__(self, store: FeatureStore, config: FinetuneConfig):
        drawing = prepare_drawing(config, store)
        self.maps = torch.from_numpy(store.read_feature_map()).flatten(1, 2)  # (N, L, C)
        cam = torch.from_numpy(store.read_cam()).flatten(1).float()
        self.specific, self.generic = (cam > config.tau_s).float(), (cam < config.tau_g).float()
        for mask in (self.specific, self.generic):
            mask[mask.sum(1) == 0] = 1
        train = store.read("train")
        self.pooled, self.label = torch.from_numpy(train.pooled), torch.from_numpy(train.label).long()
        self.tail_rows, self.head_rows = (
            torch.from_numpy(np.flatnonzero(np.isin(train.label, classes)))
            for classes in (drawing.head_tail.tail, drawing.head_tail.head)
        )
        bounds = np.searchsorted(train.label, np.arange(len(store.class_names) + 1))
        self.bounds, self.confusing = torch.from_numpy(bounds), torch.from_numpy(drawing.confusing)
        weight, bias = (torch.from_numpy(part.copy()).requires_grad_() for part in store.classifier)
        self.head, self.config = (weight, bias), config
        self.optimizer = torch.optim.SGD(self.head, lr=config.lr, momentum=config.momentum)
        self.random = torch.Generator().manual_seed(0)

    def iteration(self) -> None:
        """One step."""
        n_tail, n_augmented = self.config.n_tail, self.config.augmented_per_sample
        n_positions, g = self.maps.shape[1], self.random
        tail = self.tail_rows[torch.randint(len(self.tail_rows), (n_tail,), generator=g)]
        head = self.head_rows[torch.randint(len(self.head_rows), (n_tail * (1 + n_augmented),), generator=g)]
        order = torch.rand(n_tail, self.confusing.shape[1], generator=g).argsort(1)[:, :n_augmented]
        classes = self.confusing[self.label[tail]].gather(1, order).flatten()
        low, high = self.bounds[classes], self.bounds[classes + 1]
        donor = low + (torch.rand(len(low), generator=g) * (high - low)).long()
        row = tail.repeat_interleave(n_augmented)
        n_specific = (torch.rand(len(row), generator=g) * n_positions).round().clamp(1, n_positions - 1)
        specific = torch.multinomial(self.specific[row], n_positions, replacement=True, generator=g)
        generic = torch.multinomial(self.generic[donor], n_positions, replacement=True, generator=g)
        of_tail = torch.arange(n_positions) < n_specific[:, None]
        count = torch.zeros(2, len(row), n_positions)
        count[0].scatter_add_(1, specific, of_tail.float())
        count[1].scatter_add_(1, generic, (~of_tail).float())
        augmented = torch.einsum("bl,blc->bc", count[0], self.maps.index_select(0, row).float())
        augmented += torch.einsum("bl,blc->bc", count[1], self.maps.index_select(0, donor).float())
        pooled = torch.cat([self.pooled[torch.cat([tail, head])], augmented / n_positions])
        loss = cross_entropy(linear(pooled, *self.head), self.label[torch.cat([tail, head, row])])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def contestants(store: FeatureStore, shape: Shape) -> dict[str, tuple[Callable[[], object], int]]:
    """What is timed, and the iterations that one call of it makes."""
    cpu, n_classes = torch.device("cpu"), shape.n_classes
    config = FinetuneConfig("", iterations=shape.iterations, eval_every=shape.iterations)
    config = config.resolved(n_classes)
    straightforward = StraightforwardLoop(store, config)

    def run(residency: str, n_heads: int, memory: float | None = None) -> Callable[[], object]:
        one = replace(config, residency=residency, memory=memory)
        configs = [replace(one, lr=0.001 / (i + 1)) for i in range(n_heads)]
        with single_threaded() as threads:
            bench = Bench.open(store, config.shot_rule, cpu, threads)
            bench.hold_maps(configs[0])

        def steps() -> None:
            with single_threaded() as threads:
                bench.threads = threads
                group = Group(configs, bench)
                group.begin()
                started = time.perf_counter()
                group.run(config.iterations, lambda _: None, lambda: None)
                steps.seconds = time.perf_counter() - started

        return steps

    parts = window_parts(store, config)
    quarter = store.map_bytes / 4 / 2**30
    many = {f"{HEADS} heads, host": (run("host", HEADS), shape.iterations)} if n_classes < 100 else {}
    return {
        "straightforward loop": (straightforward.iteration, 1),
        "host": (run("host", 1), shape.iterations),
        "stream": (run("stream", 1), shape.iterations),
        "stream, memory for 1/4": (run("stream", 1, quarter), shape.iterations),
        **many,
        **{name: (call, WINDOW) for name, call in parts.items()},
    }


def window_parts(store: FeatureStore, config: FinetuneConfig) -> dict[str, Callable[[], object]]:
    """The parts of a window, and beside them what memory and arithmetic allow at the least."""
    with single_threaded() as threads:
        bench = Bench.open(store, config.shot_rule, torch.device("cpu"), threads)
        bench.hold_maps(config)
        drawing = prepare_drawing(config, store, bench.common)
        draw = METHODS["fsa"].sampling.draw
        window = WindowMaker(draw, drawing, bench.features, bench.maps).make((0, WINDOW))
        options = head_options(config, store, drawing)
    maps = torch.from_numpy(store.read_feature_map())
    table = maps.reshape(-1, maps.shape[-1])
    vectors = torch.from_numpy(window.plan.vectors)
    copied = torch.empty(vectors.numel() // WINDOW, table.shape[1], dtype=table.dtype)
    weight = torch.from_numpy(options.weight)
    velocity, logits = torch.zeros_like(weight), torch.empty(WINDOW, window.label.shape[1], len(weight))
    pooled = window.pooled[:, :, : weight.shape[1]].contiguous()

    def copy() -> None:
        for of_iteration in vectors.flatten(1):
            torch.index_select(table, 0, of_iteration, out=copied)

    def step() -> None:
        with single_threaded() as threads:
            stacks = Stacks([options], torch.device("cpu"), threads)
            started = time.perf_counter()
            stacks.take(window)
            step.seconds = time.perf_counter() - started

    def products() -> None:
        for x, z in zip(pooled, logits, strict=True):
            torch.mm(x, weight.T, out=z)
            velocity.addmm_(z.T, x, beta=0.9)
        velocity.zero_()

    return {
        "drawing the plan": lambda: draw(drawing, 0, WINDOW),
        "fusion": lambda: fuse(table, vectors),
        "copying the drawn bytes": copy,
        "step": step,
        "its two matrix products": products,
    }


def end_to_end_step() -> Callable[[], object]:
    """Forward of 128 images through ResNet-18, and their class activation maps."""
    network = build_network(NetworkConfig("resnet18-cifar"), 10).eval()
    images, label = torch.rand(128, 3, 32, 32), torch.zeros(128, dtype=torch.int64)

    def step() -> None:
        with torch.inference_mode():
            maps = network.features(images)
            class_activation_maps(maps.permute(0, 2, 3, 1), network.classifier.weight, label)

    return step


def measure(timed: dict[str, tuple[Callable[[], object], int]], repeats: int) -> pd.Series:
    """Median milliseconds an iteration of each, all in turns; the first round warms up and does not count."""
    taken = []
    for repeat in range(-1, repeats):
        for name, (call, iterations) in timed.items():
            started = time.perf_counter()
            for _ in range(5 if iterations == 1 else 1):
                call()
            spent = (time.perf_counter() - started) / (5 if iterations == 1 else 1)
            spent = getattr(call, "seconds", spent)
            if repeat >= 0:
                taken.append((name, 1000 * spent / iterations))
    frame = pd.DataFrame(taken, columns=["name", "ms"])
    return frame.groupby("name", sort=False)["ms"].median()


def report(shape: Shape, ms: pd.Series) -> None:
    """Figures and the ratios that were aimed at."""
    print(f"\n{shape.name}; {WINDOW} iterations a window, {torch.get_num_threads()} threads, medians")
    table = pd.DataFrame({"ms an iteration": ms.round(3), "iterations/s": (1000 / ms).round(0)})
    print(table.to_string())
    pairs = [
        ("straightforward loop / host", "straightforward loop", "host", 1, "at least 5 (first shape)"),
        ("fusion / copying the drawn bytes", "fusion", "copying the drawn bytes", 1, "at most 2 (second)"),
        ("step / its two matrix products", "step", "its two matrix products", 1, "at most 1.2 (second)"),
        ("stream / host", "stream", "host", 1, "at most 1.3"),
        ("stream, memory for 1/4 / host", "stream, memory for 1/4", "host", 1, "none"),
        (f"{HEADS} heads / {HEADS} runs", f"{HEADS} heads, host", "host", HEADS, "at most 0.25 (first)"),
    ]
    for what, above, below, times, goal in pairs:
        if above in ms:
            print(f"  {what}: {ms[above] / ms[below] / times:.2f}  (goal: {goal})")
    if "end to end" in ms:
        print(f"  end to end / host: {ms['end to end'] / ms['host']:.0f}")


@click.command()
@click.option("--repeats", default=7, show_default=True)
@click.option("--shape", "names", multiple=True, type=click.Choice(SHAPES), default=list(SHAPES))
def main(repeats: int, names: tuple[str, ...]) -> None:
    """Make the stores, time everything, print the tables."""
    keep_freed_memory()
    for name in names:
        shape = SHAPES[name]
        with tempfile.TemporaryDirectory() as folder:
            store = make_store(Path(folder) / "s.zarr", shape)
            timed = contestants(store, shape)
            if name == "resnet18":
                timed["end to end"] = (end_to_end_step(), 1)
            report(shape, measure(timed, repeats))


if __name__ == "__main__":
    main()
