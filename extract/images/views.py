"""Views of training images: what each of them shows is drawn by key, not in turn.

The seed of a view is a hash of Phase I's seed, the view and the image's place in its source; what the view
draws are the numbers of a counter that starts there (splitmix64: Steele, Lea and Flood 2014, fig. 14). So it
is the same view in any batch, order and process, and after any interruption, and can be drawn again alone.
The hash is written out, for the generators of libraries may change what they draw.
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
    """Raise UserError for a number `views` of a config that no store can have."""
    check_bounds(config, "views")
    if config.views > MOST_VIEWS:
        raise UserError(f"--views {config.views}: must be {MOST_VIEWS:,} or less; 16 bits number them")


def with_views(images: ImageSet, seed: int, n_views: int) -> ImageSet:
    """The same images in so many views each: 0 under the evaluation transform, others under training's.

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
    """Int64 seeds of 63 bits, of the shape that the two arrays (of one axis or more) have together."""
    key = _hashed(np.array([seed], np.uint64))
    for part in (view, sample_index):
        key = _hashed(key ^ part.astype(np.uint64))
    return (key >> np.uint64(1)).astype(np.int64)


def draw_below(seeds: np.ndarray, number: int, n: int) -> np.ndarray:
    """Each seed's draw of that number, int64 in [0, n), of the shape of `seeds` (of one axis or more)."""
    step = np.uint64(number * GOLDEN % 2**64)
    return (_hashed(seeds.astype(np.uint64) + step) % np.uint64(n)).astype(np.int64)


def _hashed(state: np.ndarray) -> np.ndarray:
    """What splitmix64 gives next after each state, uint64; arrays wrap around in silence."""
    z = state + np.uint64(GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
