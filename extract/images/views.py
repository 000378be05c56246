"""Views of training images: each is drawn from a key of its own, not from one sequence.

The seed of a view is a hash of Phase I's seed, the view and the image's position in its source; the view
draws from a counter that starts there (splitmix64: Steele, Lea and Flood 2014, fig. 14). So a view is the
same in any batch, order and process, and after any interruption, and can be drawn again alone. The hash is
written out, because the generators of libraries may change.
"""

from dataclasses import replace

import numpy as np

from extract.images.image_set import EVALUATION, ImageSet
from store.errors import UserError
from store.options import check_bounds
from store.schema import EVERY_SPLIT

GOLDEN = 0x9E3779B97F4A7C15  # the counter's step
MOST_VIEWS = int(np.iinfo(EVERY_SPLIT["view"].dtype).max) + 1


def check_views(config: object) -> None:
    """Raise UserError if a store cannot have the number of views of a config."""
    check_bounds(config, "views")
    if config.views > MOST_VIEWS:
        raise UserError(
            f"--views {config.views}: must be {MOST_VIEWS:,} or less, since a view's number has 16 bits"
        )


def with_views(images: ImageSet, seed: int, n_views: int) -> ImageSet:
    """The same images with `n_views` views each: 0 as in evaluation, others augmented as in training.

    Args:
        images: in any order.
        seed: Phase I's.
        n_views: V, 1 or more.
    """
    if n_views == 1:
        return images
    seeds = view_seeds(seed, images.sample_index[:, None], np.arange(n_views))
    seeds[:, 0] = EVALUATION
    return replace(images, seeds=seeds)


def view_seeds(seed: int, sample_index: np.ndarray, view: np.ndarray) -> np.ndarray:
    """63-bit int64 seeds, in the broadcast shape of the two arrays (of one axis or more)."""
    key = _hashed(np.array([seed], np.uint64))
    for part in (view, sample_index):
        key = _hashed(key ^ part.astype(np.uint64))
    return (key >> np.uint64(1)).astype(np.int64)


def draw_below(seeds: np.ndarray, number: int, n: int) -> np.ndarray:
    """The draw `number` of each seed, int64 in [0, n), in the shape of `seeds` (of one axis or more)."""
    step = np.uint64(number * GOLDEN % 2**64)
    return (_hashed(seeds.astype(np.uint64) + step) % np.uint64(n)).astype(np.int64)


def _hashed(state: np.ndarray) -> np.ndarray:
    """The next output of splitmix64 for each state, uint64; arrays overflow silently, as intended."""
    z = state + np.uint64(GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
