"""Images that two worker processes read, and what must not be left of these."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import extract.images.processes
import extract.images.workers
from extract.device import Compute
from extract.images.batches import evaluation_batches, training_batches
from extract.images.image_set import ImageSet
from extract.images.parts import ImageFiles
from extract.images.transforms import Transform

TESTS = Path(__file__).parent
SIZE = 72  # pixels, so that images stay files
N = 10
COMPUTE = Compute(torch.device("cpu"), "fp32", 4, workers=2)  # so each worker takes two images at once


def made_split(folder: Path) -> ImageSet:
    """Ten images of noise, of three classes."""
    generator = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(N)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (80, 90, 3), np.uint8)).save(path)
    return ImageSet(paths, np.arange(N) % 3, np.arange(N))


def with_bad_image(split: ImageSet, bad: Path, at: int) -> ImageSet:
    """The same with a file that is no image in the place of one."""
    bad.write_text("no image")
    return ImageSet([*split.images[:at], bad, *split.images[at + 1 :]], split.label, split.sample_index)


def allow_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers on any machine, checked often."""
    monkeypatch.setattr(extract.images.workers, "available_cores", lambda: 2)
    for module in (extract.images.processes, extract.images.workers):
        monkeypatch.setattr(module, "LOOK", 1)


def read(split: ImageSet, compute: Compute = COMPUTE) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Read one training epoch, and the split in its own order."""
    generator, transform = torch.Generator().manual_seed(0), Transform(SIZE)
    batches = list(training_batches(split, transform, generator, compute))
    return batches + list(evaluation_batches(split, transform, compute))


def files_of(split: ImageSet) -> ImageFiles:
    """The images in their own order, for parts that a test cuts itself."""
    return ImageFiles(split, Transform(SIZE), range(N), np.zeros((N, 1), np.int64))


@contextmanager
def nothing_left() -> Iterator[None]:
    """After it there is no process, no thread and no pipe that was not there before."""
    before, threads, pipes = set(active_children()), set(threading.enumerate()), _open_pipes()
    yield
    assert set(active_children()) <= before
    assert [thread.name for thread in set(threading.enumerate()) - threads] == []
    assert _open_pipes() <= pipes


def _open_pipes() -> set[str]:
    folder = Path("/proc/self/fd")
    found = [os.readlink(path) for path in folder.iterdir() if path.is_symlink()] if folder.exists() else []
    return {name for name in found if name.startswith("pipe:")}


def program(code: str, split: ImageSet, **environment: str) -> subprocess.CompletedProcess:
    """Run Python code that is told where the images are."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [sys.executable, "-c", code, str(split.images[0].parent)]
    environment = os.environ | {"PYTHONPATH": path} | environment
    return subprocess.run(command, env=environment, capture_output=True, timeout=120)
