"""Held-out images as a fraction of every class, chosen by nothing but their names.

A fixed hash of an image's name places it between 0 and 1. With `--test-fraction 0.2`, images below 0.2 are
the test split. So the split is the same on every machine and for every seed, an image that is added moves no
other, and a larger fraction holds out the same images and more. Only where a class would have no image in a
split, its next one goes there.
"""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from extract.sources.held_out import fractions_in_words, fractions_of
from extract.sources.listing import Listing
from store.errors import UserError
from store.names import composed, shown

KEY = b"tailcache held-out images"


def with_fractions(listing: Listing, config: Any) -> Listing:
    """The listing with the held-out splits that the DatasetConfig `config` asks for as fractions.

    They keep the numbers (`sample_index`) of the training images that they are taken from.

    Args:
        listing: the images with their names.
        config: the description.

    Raises:
        UserError: a class with too few images for one in every split.
    """
    fractions = fractions_of(config)
    if not fractions:
        return listing
    train = listing.splits["train"]
    places, taken = places_of(train.name), dict[str, list[np.ndarray]]()
    for class_id, class_name in enumerate(listing.class_names):
        of_class = np.flatnonzero(train.label == class_id)
        if len(of_class) <= len(fractions):
            splits = " and ".join(["one for training", *(f"one for {split}" for split in fractions)])
            raise UserError(
                f"{fractions_in_words(config)}: class {shown(class_name)} has {len(of_class)} "
                f"image{'s' * (len(of_class) != 1)}, but needs {splits}; add images or leave the class out"
            )
        for split, index in divide(places[of_class], fractions).items():
            taken.setdefault(split, []).append(of_class[index])
    drawn = {split: train.take(np.sort(np.concatenate(parts))) for split, parts in taken.items()}
    return replace(listing, splits=listing.splits | drawn)


def divide(places: np.ndarray, fractions: dict[str, float]) -> dict[str, np.ndarray]:
    """Divide the images of a class.

    Args:
        places: (n,) in [0, 1), with n above the number of fractions.
        fractions: of the held-out splits, in order.

    Returns:
        Indices into `places` of the images of every split, and of "train", which has the rest; at least one
        each.
    """
    order = np.argsort(places, kind="stable")
    ordered, parts, start, bound = places[order], {}, 0, 0.0
    for left, (split, fraction) in zip(range(len(fractions), 0, -1), fractions.items(), strict=True):
        bound += fraction
        stop = int(np.searchsorted(ordered, bound))
        stop = min(max(stop, start + 1), len(order) - left)  # `left` splits come after this one
        parts[split] = order[start:stop]
        start = stop
    return parts | {"train": order[start:]}


def places_of(names: np.ndarray) -> np.ndarray:
    """Where the images with these names, (N,) bytes in UTF-8, stand between 0 and 1; (N,) float64."""
    places = np.empty(len(names))
    for row, name in enumerate(names):
        if not name.isascii():  # the same in whatever Unicode form a disk keeps it
            name = composed(name.decode()).encode()
        digest = hashlib.blake2b(name, digest_size=6, key=KEY).digest()
        places[row] = int.from_bytes(digest, "big") / 2**48  # exact in float64
    return places
