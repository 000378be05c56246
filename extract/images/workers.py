"""Image files read by worker processes: batches in order, within what shared memory there is.

No wait is without an end: a worker that died, that found no room, or that gives nothing any more, is told.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from extract.device import Compute
from extract.images.image_set import ImageSet
from extract.images.transforms import Transform, image_views
from store.errors import UserError
from store.notes import note

SHARED = "/dev/shm"  # where workers leave images for this process
PREFETCH = 2  # parts of batches that a worker makes ahead
SHARE = 0.5  # of the free shared memory, for others may want some
LOOK = 5  # seconds between looks at whether the workers live
LONGEST = 600  # seconds without a part, after which something hangs that will not come back
ADVICE = "pass --workers 0, which needs none of it, or give the container more (docker run --shm-size 1g)"


class ImageFiles(TorchDataset):
    """Image files for worker processes; a bad one comes back as its message, to be raised at home.

    Attributes:
        order: places in the split, in the order in which they are asked for.
    """

    def __init__(self, split: ImageSet, transform: Transform, order: Sequence[int], seeds: np.ndarray):
        self.split, self.transform, self.order, self.seeds = split, transform, order, seeds

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> torch.Tensor | str:
        index = self.order[position]
        try:
            path, seeds = self.split.images[index], self.seeds[index].tolist()
            return image_views(path, self.transform, seeds, self.split.expected(index))
        except UserError as error:
            return str(error)


def available_cores() -> int:
    """Cores that this process may use; more workers would only make torch warn."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_batches(files: ImageFiles, compute: Compute) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Views uint8 (B, V, 3, H, W) and index int64 (B,) of one batch of images after the other.

    Workers hand over parts of a batch, no larger than a batch of one view, nor than shared memory has room
    for.

    Raises:
        UserError: an image that cannot be read, no room in shared memory, a worker that died, or none that
            gives anything any more.
    """
    n_workers = min(compute.workers, available_cores())
    n_views = files.seeds.shape[1]
    image_bytes = n_views * 3 * files.transform.image_size**2
    at_once = max(1, compute.batch_size // n_views)
    if n_workers:
        at_once = min(at_once, _fitting(n_workers, image_bytes, at_once))
    batches = [_cut(batch, at_once) for batch in _cut(range(len(files)), compute.batch_size)]
    loaded = _begin(files, [part for batch in batches for part in batch], n_workers)
    for batch in batches:
        positions = [position for part in batch for position in part]
        index = torch.tensor([files.order[position] for position in positions])
        if len(batch) == 1:  # as it is: joining copies
            yield _received(loaded), index
            continue
        images = None
        for part in batch:
            received = _received(loaded)
            if images is None:
                images = received.new_empty((len(positions), *received.shape[1:]))
            start = part[0] - positions[0]
            images[start : start + len(part)] = received  # and its shared memory is free again
        yield images, index


def _cut(positions: range, n: int) -> list[range]:
    return [positions[start : start + n] for start in range(0, len(positions), n)]


def _fitting(n_workers: int, image_bytes: int, at_once: int) -> int:
    """The most images of a part for which shared memory has room, `at_once` of them at most.

    Raises:
        UserError: not even for one.
    """
    try:
        found = os.statvfs(SHARED)
    except OSError:  # a system that has it elsewhere
        return at_once
    free = found.f_bavail * found.f_frsize
    parts = n_workers * PREFETCH + 2  # ready or being made, and the one in use with the one before
    most = int(free * SHARE) // (parts * image_bytes)
    if most < 1:
        raise UserError(
            f"{SHARED}: has {free / 2**20:.1f} MiB free, too little for the images that {n_workers} workers "
            f"hand over; {ADVICE}"
        )
    if most < at_once:
        size = found.f_blocks * found.f_frsize
        note(
            f"{SHARED} has {size / 2**20:.0f} MiB, so workers hand over parts of batches at a time; "
            "a container may have more (docker run --shm-size 1g)"
        )
    return min(most, at_once)


def _begin(files: ImageFiles, parts: list[range], n_workers: int) -> Iterator[torch.Tensor | str]:
    looking = {"timeout": LOOK, "prefetch_factor": PREFETCH} if n_workers else {}
    loader = DataLoader(
        files,
        batch_sampler=parts,
        num_workers=n_workers,
        collate_fn=_collate,
        worker_init_fn=_become_worker,
        generator=torch.Generator(),  # or DataLoader would draw its workers' seed from the global one
        **looking,
    )
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    # torch's own handler would raise an error of a worker that died, killed with us perhaps, in any line.
    handler: Callable | int | None = signal.getsignal(signal.SIGCHLD)
    loaded = iter(loader)
    signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
    return loaded


def _become_worker(number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that the user started
    signal.signal(signal.SIGBUS, signal.SIG_DFL)  # which tells of it, and torch's handler need not


def _collate(images: list[torch.Tensor | str]) -> torch.Tensor | str:
    for image in images:
        if isinstance(image, str):
            return image
    part = torch.stack(images)
    if get_worker_info() is None:
        return part
    try:
        return part.share_memory_()  # here: an error in the queue's own thread would never be heard of
    except (RuntimeError, OSError) as error:
        return f"{SHARED}: has no room for {part.nbytes / 2**20:.1f} MiB of images ({error}); {ADVICE}"


def _received(loaded: Iterator[torch.Tensor | str]) -> torch.Tensor:
    """The next part.

    Raises:
        UserError: it is the message of an error, or none came.
    """
    for _ in range(LONGEST // LOOK):  # counted, not timed: a process that is stopped for a while is no error
        try:
            part = next(loaded)
        except RuntimeError as error:
            if str(error).startswith("DataLoader timed out"):
                continue
            if str(error).startswith("DataLoader worker (pid"):
                raise UserError(
                    "a worker process that reads images died, killed for want of memory perhaps, or of room "
                    f"in {SHARED}; lower --workers or --batch-size, or pass --workers 0"
                ) from error
            raise
        if isinstance(part, str):
            raise UserError(part)
        return part
    raise UserError(
        f"no image came from the worker processes for {LONGEST // 60} minutes; see whether the disk that "
        "holds them answers, or pass --workers 0"
    )
