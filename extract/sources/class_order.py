"""The order of classes, which is that of the FC layer's outputs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from store.errors import UserError
from store.names import composed, shown

if TYPE_CHECKING:
    from extract.sources.listing import Listing


def in_order(listing: "Listing", names: Sequence[str], where: object) -> "Listing":
    """A listing whose classes are numbered in the order of some names; the images keep their order.

    Names that differ only in their Unicode form are the same. Classes that are the numbers from 0 on get the
    names that stand at their places.

    Args:
        listing: with K classes.
        names: the K names.
        where: what has the names, for messages.

    Raises:
        UserError: a name is of no class, or a class has no name.
    """
    numbers = [str(k) for k in range(len(names))]
    are_numbers = sorted(listing.class_names) == sorted(numbers) and not set(numbers) & set(names)
    if are_numbers and len(set(names)) == len(names):  # folders are sorted as text: 0, 1, 10, 2
        return replace(in_order(listing, numbers, where), class_names=list(names))
    number = {composed(name): k for k, name in enumerate(names)}
    of_listing = {composed(name) for name in listing.class_names}
    unknown = [name for name in listing.class_names if composed(name) not in number]
    absent = [name for name in names if composed(name) not in of_listing]
    if unknown or absent or len(number) != len(names):
        parts = [f"lacks {_counted(unknown)}"] if unknown else []
        parts += [f"has {_counted(absent)}, of which there are no training images"] if absent else []
        raise UserError(
            f"{where}: names {len(names):,} classes where the images are of {len(listing.class_names):,}: it "
            f"{' and '.join(parts) or 'has a name twice'}; expected the class of each output of the FC layer "
            "in order, each once and with training images (--class-names FILE names them; `extract "
            "--classifier fresh` needs no order)"
        )
    place = np.array([number[composed(name)] for name in listing.class_names], dtype=np.int64)
    splits = {split: replace(images, label=place[images.label]) for split, images in listing.splits.items()}
    class_names = [listing.class_names[k] for k in np.argsort(place)]
    return replace(listing, class_names=class_names, splits=splits)


def _counted(names: Sequence[str], n: int = 3) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - n:,} more" if len(names) > n else ""
    return ", ".join(map(shown, names[:n])) + more
