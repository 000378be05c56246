"""Image files read by worker processes: batches in order, within the available shared memory.

Nothing waits forever: a worker that died, found no room or hangs is reported.
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

SHARED = "/dev/shm"  # where workers put images for this process
PREFETCH = 2  # parts of batches that each worker prepares ahead
SHARE = 0.5  # of the free shared memory: other processes may need some
LOOK = 5  # seconds between checks that the workers are alive
LONGEST = 600  # seconds without a part after which the workers count as hung
ADVICE = "pass --workers 0, which needs none, or give the container more (docker run --shm-size 1g)"


class ImageFiles(TorchDataset):
    """Image files for worker processes; a bad one is returned as its message, and raised in the parent.

    Attributes:
        order: positions in the split, in the order of the batches.
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
    """Cores that this process may use; torch warns about more workers."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_batches(files: ImageFiles, compute: Compute) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Views uint8 (B, V, 3, H, W) and index int64 (B,) of each batch of images in turn.

    Workers hand over parts of a batch, no larger than a batch of one view or than shared memory allows.

    Raises:
        UserError: an image cannot be read, shared memory is full, or a worker died or hangs.
    """
    n_workers = min(compute.workers, available_cores())
    n_views = files.seeds.shape[1]
    image_bytes = n_views * 3 * files.transform.image_size**2
    at_once = max(1, compute.batch_size // n_views)
    if n_workers:
        at_once = min(at_once, _fitting(n_workers, image_bytes, at_once))
    batches = [_cut(batch, at_once) for batch in _cut(range(len(files)), compute.batch_size)]
    loaded = _loader(files, [part for batch in batches for part in batch], n_workers)
    for batch in batches:
        positions = [position for part in batch for position in part]
        index = torch.tensor([files.order[position] for position in positions])
        if len(batch) == 1:  # unchanged: joining would copy
            yield _received(loaded), index
            continue
        images = None
        for part in batch:
            received = _received(loaded)
            if images is None:
                images = received.new_empty((len(positions), *received.shape[1:]))
            start = part[0] - positions[0]
            images[start : start + len(part)] = received  # which frees its shared memory
        yield images, index


def _cut(positions: range, n: int) -> list[range]:
    return [positions[start : start + n] for start in range(0, len(positions), n)]


def _fitting(n_workers: int, image_bytes: int, at_once: int) -> int:
    """The most images of a part that fit in shared memory, at most `at_once`.

    Raises:
        UserError: not even one fits.
    """
    try:
        found = os.statvfs(SHARED)
    except OSError:  # a system without it
        return at_once
    free = found.f_bavail * found.f_frsize
    parts = n_workers * PREFETCH + 2  # ready or in preparation, plus the current and the previous one
    most = int(free * SHARE) // (parts * image_bytes)
    if most < 1:
        raise UserError(
            f"{SHARED}: has {free / 2**20:.1f} MiB free, too little for the images that {n_workers} workers "
            f"hand over; {ADVICE}"
        )
    if most < at_once:
        size = found.f_blocks * found.f_frsize
        note(
            f"{SHARED} has {size / 2**20:.0f} MiB, so workers hand over batches in parts; "
            "a container can have more (docker run --shm-size 1g)"
        )
    return min(most, at_once)


def _loader(files: ImageFiles, parts: list[range], n_workers: int) -> Iterator[torch.Tensor | str]:
    looking = {"timeout": LOOK, "prefetch_factor": PREFETCH} if n_workers else {}
    loader = DataLoader(
        files,
        batch_sampler=parts,
        num_workers=n_workers,
        collate_fn=_collate,
        worker_init_fn=_become_worker,
        generator=torch.Generator(),  # else DataLoader draws its workers' seed from the global one
        **looking,
    )
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    # torch's own handler would raise the error of a dead worker in any line, even if we are killed too.
    handler: Callable | int | None = signal.getsignal(signal.SIGCHLD)
    loaded = iter(loader)
    signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
    return loaded


def _become_worker(number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that the user started
    signal.signal(signal.SIGBUS, signal.SIG_DFL)  # reported without torch's handler


def _collate(images: list[torch.Tensor | str]) -> torch.Tensor | str:
    for image in images:
        if isinstance(image, str):
            return image
    part = torch.stack(images)
    if get_worker_info() is None:
        return part
    try:
        return part.share_memory_()  # here: an error in the queue's thread would be lost
    except (RuntimeError, OSError) as error:
        return f"{SHARED}: has no room for {part.nbytes / 2**20:.1f} MiB of images ({error}); {ADVICE}"


def _received(loaded: Iterator[torch.Tensor | str]) -> torch.Tensor:
    """The next part.

    Raises:
        UserError: it is an error message, or none came.
    """
    for _ in range(LONGEST // LOOK):  # counted, not timed: a stopped process is not an error
        try:
            part = next(loaded)
        except RuntimeError as error:
            if str(error).startswith("DataLoader timed out"):
                continue
            if str(error).startswith("DataLoader worker (pid"):
                raise UserError(
                    "a worker process that reads images died, perhaps killed for lack of memory or of room "
                    f"in {SHARED}; lower --workers or --batch-size, or pass --workers 0"
                ) from error
            raise
        if isinstance(part, str):
            raise UserError(part)
        return part
    raise UserError(
        f"no image came from the worker processes for {LONGEST // 60} minutes; check whether the disk with "
        "the images responds, or pass --workers 0"
    )
