"""scikit-learn's 1,797 handwritten digits."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.sources.source import Source

if TYPE_CHECKING:
    from extract.sources.listing import Listing

TEST_PER_CLASS = 30


def list_digits(root: Path, config: Any) -> "Listing":
    """8×8 images scaled to 32×32; a fixed 30 of each class are the test split."""
    return _listed()


@cache  # every command of a demo asks for them
def _listed() -> "Listing":
    import numpy as np
    import torch
    from sklearn.datasets import load_digits

    from extract.sources.listing import Listing, listed_images

    data = load_digits()
    grey = torch.from_numpy(data.images).float()[:, None] * (255 / 16)
    scaled = torch.nn.functional.interpolate(grey, (32, 32), mode="bilinear", align_corners=False)
    images = scaled.round().to(torch.uint8).expand(-1, 3, -1, -1)
    rng = np.random.RandomState(0)
    test = [rng.permutation(np.flatnonzero(data.target == c))[:TEST_PER_CLASS] for c in range(10)]
    test = np.sort(np.concatenate(test))
    train = np.setdiff1d(np.arange(len(images)), test)
    everything = listed_images(images.contiguous(), data.target)
    splits = {"train": everything.take(train), "test": everything.take(test)}
    return Listing([str(digit) for digit in data.target_names], splits)


SOURCE = Source(list_digits, mirrored=False)
