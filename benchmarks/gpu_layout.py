"""Time of a recorded step on a GPU, with either layout of the logits in memory.

Usage: python benchmarks/gpu_layout.py. Random features, windows of 64 iterations of 128 rows, balanced
softmax; both layouts in turns, twice.
"""

import click
import numpy as np
import torch

from extract.device import make_deterministic, resolve_device, use_device
from finetune.heads import stacked
from finetune.heads.cuda_graph import recorded_on
from finetune.heads.losses import balanced_softmax
from finetune.heads.options import HeadOptions
from finetune.heads.stacked import StackedHeads, padded

SHAPES = (  # classes, channels, heads
    (10, 512, 1),
    (10, 512, 64),
    (100, 512, 1),
    (1000, 2048, 1),
    (1000, 2048, 8),
    (8142, 2048, 1),
)
ITERATIONS, BATCH, WINDOWS = 64, 128, 5


def made_heads(n_classes: int, channels: int, n_heads: int, device: torch.device) -> StackedHeads:
    """Heads that differ in learning rate, with steps recorded on the device."""
    rng = np.random.default_rng(0)
    prior = rng.dirichlet(np.ones(n_classes)).clip(1e-6)
    weight = (rng.normal(size=(n_classes, channels)) / channels**0.5).astype(np.float32)
    bias, loss = np.zeros(n_classes, np.float32), balanced_softmax(prior / prior.sum(), 1.0)
    options = [HeadOptions(weight, bias, loss, 1e-3 / (i + 1), 0.9, 5e-4) for i in range(n_heads)]
    return StackedHeads(options, device, recorded=recorded_on(device))


def microseconds(heads: StackedHeads, pooled: torch.Tensor, label: torch.Tensor) -> float:
    """Time of a step, once they are recorded."""
    heads.train_on(pooled, label, 0)
    started, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    started.record()
    for _ in range(WINDOWS):
        heads.train_on(pooled, label, 0)
    ended.record()
    torch.cuda.synchronize()
    return 1000 * started.elapsed_time(ended) / WINDOWS / ITERATIONS


@click.command()
@click.option("--device", default="cuda", show_default=True)
def main(device: str) -> None:
    """Print a line for every shape."""
    make_deterministic()
    where = use_device(resolve_device(device))
    for n_classes, channels, n_heads in SHAPES:
        generator = torch.Generator().manual_seed(0)
        pooled = padded(torch.rand(ITERATIONS, BATCH, channels, generator=generator)).to(where)
        label = torch.randint(n_classes, (ITERATIONS, BATCH), generator=generator).to(where)
        taken: dict[bool, list[str]] = {False: [], True: []}
        for by_row in (False, True) * 2:
            stacked.classes_innermost = lambda _, by_row=by_row: by_row
            heads = made_heads(n_classes, channels, n_heads, where)
            taken[by_row].append(f"{microseconds(heads, pooled, label):.1f}")
        found = "; ".join(
            f"{name} innermost {' and '.join(taken[by_row])} µs"
            for name, by_row in (("batch", False), ("classes", True))
        )
        click.echo(f"{n_classes:,} classes, {channels} channels, {n_heads} heads: {found}")


if __name__ == "__main__":
    main()
