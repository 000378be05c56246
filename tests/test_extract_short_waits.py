"""Beside worker processes, threads of torch that wait give up their core."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from extract.device import Compute
from extract.images import workers
from extract.images.batches import evaluation_batches
from extract.images.image_set import ImageSet
from extract.images.short_waits import short_waits
from extract.images.transforms import Transform, normalise

SIZE, N = 72, 6  # images of 72 pixels stay files
LOOPS = 40
TASKS = Path("/proc/self/task")
GNU = list((Path(torch.__file__).parent / "lib").glob("libgomp*"))


@pytest.fixture
def all_threads() -> Iterator[None]:
    """torch with a thread for each core, as programs have it; tests have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(workers.available_cores())
    yield
    torch.set_num_threads(before)


def sleeps() -> dict[str, int]:
    """How often each thread of this process has gone to sleep by itself."""
    found = {}
    for task in TASKS.iterdir():
        with suppress(FileNotFoundError):  # it ended
            lines = (task / "status").read_text().splitlines()
            found[task.name] = next(int(line.split()[1]) for line in lines if line.startswith("voluntary"))
    return found


@pytest.mark.skipif(
    not (TASKS.exists() and GNU) or workers.available_cores() < 2,
    reason="needs Linux, GNU's OpenMP and two cores",
)
def test_threads_of_torch_sleep_between_its_loops(all_threads):
    values = torch.zeros(1 << 18)
    with short_waits():
        values.add_(1)  # starts the threads
        before = sleeps()
        for _ in range(LOOPS):
            values.add_(1)
            sum(range(20_000))  # this thread alone, for less time than a busy loop takes
        slept = {task: n - before.get(task, 0) for task, n in sleeps().items()}
    assert max(slept.values()) >= LOOPS // 2


def test_it_ends_with_an_error():
    with pytest.raises(ZeroDivisionError), short_waits():
        1 / (1 - len(helpers()))
    assert not helpers()


def helpers() -> list[threading.Thread]:
    """The threads that keep waits short."""
    return [thread for thread in threading.enumerate() if thread.name == "short waits"]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """A few image files."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(N)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (80, 90, 3), np.uint8)).save(path)
    return ImageSet(paths, np.arange(N) % 3, np.arange(N))


@pytest.mark.parametrize(
    ("n_workers", "n_cores", "n_helpers"),
    [(1, 1, 1), (2, 2, 1), (2, 3, 0), (0, 1, 0)],
)
def test_waits_are_short_where_workers_and_threads_outnumber_the_cores(
    split, monkeypatch, n_workers, n_cores, n_helpers
):
    monkeypatch.setattr(workers, "available_cores", lambda: n_cores)
    compute = Compute(torch.device("cpu"), "fp32", 2, n_workers)
    batches = evaluation_batches(split, Transform(SIZE), compute)
    seen = [len(helpers()) for _ in batches]
    assert seen == [n_helpers] * (N // 2)
    assert not helpers()


def test_none_is_left_when_batches_are_no_longer_wanted(split, monkeypatch):
    monkeypatch.setattr(workers, "available_cores", lambda: 1)
    compute = Compute(torch.device("cpu"), "fp32", 2, 1)
    batches = evaluation_batches(split, Transform(SIZE), compute)
    next(batches)
    assert len(helpers()) == 1
    batches.close()
    assert not helpers()


def test_threads_do_not_change_what_is_normalised(all_threads):
    images = torch.arange(256, dtype=torch.uint8).repeat(2, 3, 256, 1)
    transform = Transform(256, mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))
    shared = normalise(images, transform)
    values = np.arange(256, dtype=np.float32) / np.float32(255)
    for channel in range(3):
        mean, std = np.float32(transform.mean[channel]), np.float32(transform.std[channel])
        assert np.array_equal(shared[:, channel], np.broadcast_to((values - mean) / std, (2, 256, 256)))
