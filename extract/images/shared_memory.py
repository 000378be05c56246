"""How many images fit in the shared memory in which worker processes hand them over."""

import os

from store.errors import UserError
from store.notes import note

SHARED = "/dev/shm"  # where workers put images for this process
SHARE = 0.5  # of the free shared memory: other processes may need some
ADVICE = "pass --workers 0, which needs none, or give the container more (docker run --shm-size 1g)"


def fitting(n_parts: int, image_bytes: int, at_once: int, n_workers: int) -> int:
    """The most images of a part that fit in shared memory, at most `at_once`.

    Args:
        n_parts: how many parts are there at the same time.
        image_bytes: bytes of one image with all its views.
        at_once: as many as are wanted.
        n_workers: how many processes there are, for the message.

    Raises:
        UserError: not even one fits.
    """
    try:
        found = os.statvfs(SHARED)
    except OSError:  # a system without it
        return at_once
    free = found.f_bavail * found.f_frsize
    most = int(free * SHARE) // (n_parts * image_bytes)
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
