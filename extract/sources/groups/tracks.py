"""Names that say that images come in tracks: `00012_00007.ppm` is the eighth frame of the thirteenth track.

Such frames look alike. Drawn one by one, some are trained on and others tested on, and the accuracy is that
of images that were seen.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from math import gcd
from typing import Any

import numpy as np

from extract.sources.groups.options import is_grouped
from extract.sources.held_out import fractions_in_words, fractions_of
from extract.sources.listing import Listing
from store.names import quoted, shown

NUMBERED = re.compile(rb"(.*[^0-9]|)([0-9]+)", re.DOTALL)
SHARE = 0.8  # of the images must be in tracks
TRACKS_A_CLASS = 4  # on average, at least; fewer may be places that the images were found at
FRAMES = 3  # in the median track, at least
PATTERN = r"(.*[^0-9])[0-9]+\.[^./]*$"


def note_of_tracks(listing: Listing, config: Any) -> tuple[str, ...]:
    """What to say if splits are about to be drawn image by image, but names say that these come in tracks."""
    asked = fractions_in_words(config) if fractions_of(config) else f"--val-per-class {config.val_per_class}"
    train = listing.splits["train"]
    is_drawn = bool(fractions_of(config)) or config.val_per_class > 0
    if not is_drawn or is_grouped(config) or train.name is None:
        return ()
    example = find_track(train.name.tolist(), train.label)
    if example is None:
        return ()
    first, last = (shown(name.decode()) for name in example)
    return (
        f"{asked}: images seem to come in tracks, such as {first} to {last}, which will be divided one by "
        "one; if images belong together whose names differ only in the last number, keep them in one split "
        f"with --group-regex {quoted(PATTERN)}",
    )


def find_track(names: Sequence[bytes], label: np.ndarray) -> tuple[bytes, bytes] | None:
    """The first and the last image of one track, if most images are in tracks by their names; else None.

    A track is several images of a class that share their name up to its last number, where these numbers
    follow each other. Plain numbering, such as `img_0001.jpg`, makes one of a whole class, and a class has
    many tracks.

    Args:
        names: N paths.
        label: (N,) classes.
    """
    numbered: dict[tuple[int, bytes], list[tuple[int, bytes]]] = {}
    for class_id, name in zip(label.tolist(), names, strict=True):
        stem, dot, extension = name.rpartition(b".")
        found = NUMBERED.fullmatch(stem) if dot and b"/" not in extension else None
        if found is not None:
            numbered.setdefault((class_id, found[1]), []).append((int(found[2]), name))
    tracks = [sorted(images) for images in numbered.values() if _follow(sorted(n for n, _ in images))]
    n_frames = sorted(map(len, tracks))
    if (
        len(tracks) < TRACKS_A_CLASS * len(np.unique(label))
        or n_frames[len(n_frames) // 2] < FRAMES
        or sum(n_frames) < SHARE * len(names)
    ):
        return None
    track = next(track for track in tracks if len(track) >= FRAMES)
    return track[0][1], track[-1][1]


def _follow(numbers: list[int]) -> bool:
    """Whether ascending numbers follow each other, in steps of one size, half of which may be missing."""
    steps = [after - before for before, after in pairwise(numbers)]
    if not steps or min(steps) == 0:
        return False
    return (numbers[-1] - numbers[0]) // gcd(*steps) < 2 * len(numbers)
