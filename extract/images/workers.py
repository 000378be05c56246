"""Image files read by worker processes: batches in order, within the available shared memory.

Nothing waits forever: a worker that died, found no room or hangs is reported.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import WeakSet

import torch

from extract.device import Compute
from extract.images.gate import Gate
from extract.images.parts import ImageFiles, prepare
from extract.images.processes import LOOK, PREFETCH, Workers, end_all
from extract.images.shared_memory import SHARED, fitting
from store.errors import UserError

LONGEST = 600  # seconds without a part after which the workers count as hung
DIED = (
    "a worker process that reads images died, perhaps killed for lack of memory or of room "
    f"in {SHARED}; lower --workers or --batch-size, or pass --workers 0"
)


def available_cores() -> int:
    """Cores that this process may use; torch warns about more workers."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_batches(
    files: ImageFiles, compute: Compute, in_turns: bool = False
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Views uint8 (B, V, 3, H, W) and index int64 (B,) of each batch of images in turn.

    The next batch overwrites the views of this one, except for a GPU, which may not have fetched them yet.

    Args:
        files: in the order of the batches.
        compute: device, batch size and workers.
        in_turns: see `load_parts`.

    Raises:
        UserError: as of `load_parts`.
    """
    n_images, size = len(files.order), compute.batch_size
    pinned = compute.device.type == "cuda"  # from where a GPU can fetch it while it computes
    joined: torch.Tensor | None = None
    for views, positions in load_parts(files, compute, in_turns):
        first = positions[0] - positions[0] % size
        n_batch, start = min(size, n_images - first), positions[0] - first
        if len(views) == n_batch:  # a whole batch would only be copied
            images = views
        else:
            if start == 0 and (joined is None or pinned):
                joined = torch.empty((n_batch, *views.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
            # by numpy: a second thread of torch's would wait for a worker's core, then spin on it for a while
            joined.numpy()[start : start + len(views)] = views.numpy()
            images = joined[:n_batch]
        if start + len(views) == n_batch:
            yield images, torch.tensor([files.order[position] for position in range(first, first + n_batch)])


def load_parts(
    files: ImageFiles, compute: Compute, in_turns: bool = False
) -> Iterator[tuple[torch.Tensor, range]]:
    """Views uint8 (b, V, 3, H, W) of some images of a batch, and their positions in the order, in turn.

    Workers share every batch: each hands over parts of it, as many as shared memory allows.

    Args:
        files: in the order of the batches.
        compute: device, batch size and workers.
        in_turns: whether workers prepare images only while this process waits for a batch, if they would take
            cores from its threads.

    Raises:
        UserError: an image cannot be read, shared memory is full, or a worker died or hangs.
    """
    n_workers, n_images = min(compute.workers, available_cores()), len(files.order)
    n_views = files.seeds.shape[1]
    at_once = -(-compute.batch_size // (max(1, n_workers) * n_views))
    if n_workers:
        # Each worker's parts, ready or in preparation, plus the current and the previous one.
        n_parts, image_bytes = n_workers * PREFETCH + 2, n_views * 3 * files.transform.image_size**2
        at_once = fitting(n_parts, image_bytes, at_once, n_workers)
    batches = _cut(range(n_images), compute.batch_size)
    parts = [part for batch in batches for part in _cut(batch, at_once)]
    with _prepared(files, parts, n_workers) as (loaded, gate):
        in_turns = in_turns and gate is not None and _share_cores(compute)
        for part in parts:
            if in_turns and part.start % compute.batch_size == 0:
                gate.open()
            received = _received(loaded)
            if in_turns and (part.stop % compute.batch_size == 0 or part.stop == n_images):
                gate.close()
            yield received, part  # the next one frees its memory


def _share_cores(compute: Compute) -> bool:
    """Whether each core has a thread that computes, and these wait for each other."""
    return compute.device.type == "cpu" and torch.get_num_threads() >= max(2, available_cores())


def _cut(positions: range, n: int) -> list[range]:
    return [positions[start : start + n] for start in range(0, len(positions), n)]


class _Kept:
    """All workers that are begun within one `keep_workers`, and those that wait for more, by their number."""

    def __init__(self) -> None:
        self.begun: WeakSet[Workers] = WeakSet()  # until they have ended
        self.waiting: dict[int, Workers] = {}


_KEPT: ContextVar[_Kept | None] = ContextVar("kept workers", default=None)


@contextmanager
def keep_workers() -> Iterator[None]:
    """Within it, worker processes wait for the next split or epoch instead of being started anew.

    None is left after it, not even of batches that nobody went on with.
    """
    kept = _Kept()
    token = _KEPT.set(kept)
    try:
        yield
    finally:
        _KEPT.reset(token)
        end_all(kept.begun)


@contextmanager
def _prepared(
    files: ImageFiles, parts: list[range], n_workers: int
) -> Iterator[tuple[Iterator, Gate | None]]:
    """What workers make of each part of some files; they are kept if all parts were taken."""
    if not n_workers:
        yield (prepare(files.part(part)) for part in parts), None
        return
    kept = _KEPT.get()
    workers = None if kept is None else kept.waiting.pop(n_workers, None)
    loaded = None if workers is None else workers.resumed(files, parts)
    if loaded is None:
        workers = Workers(n_workers, waiting=kept is not None)
        if kept is not None:
            kept.begun.add(workers)
    try:
        yield (workers.begin(files, parts) if loaded is None else loaded), workers.gate
        if kept is not None and n_workers not in kept.waiting:
            workers.gate.open()
            kept.waiting[n_workers] = workers
    finally:
        if kept is None or kept.waiting.get(n_workers) is not workers:
            workers.end()


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
                raise UserError(DIED) from error
            raise
        except (EOFError, ConnectionError, FileNotFoundError) as error:
            # Of one that dies as its images are fetched from it, there is only a broken connection; an error
            # that it hands over has its traceback.
            if not str(error).startswith("Caught "):
                raise UserError(DIED) from error
            raise
        if isinstance(part, str):
            raise UserError(part)
        return part
    raise UserError(
        f"no image came from the worker processes for {LONGEST // 60} minutes; check whether the disk with "
        "the images responds, or pass --workers 0"
    )
