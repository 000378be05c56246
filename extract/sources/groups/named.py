"""The group of each image, by a pattern in its path or a column of its table; no group in two splits."""

import re
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from extract.images.image_set import ImageSet
from extract.sources.groups.options import check_groups, groups_in_words, is_grouped
from extract.sources.listing import Listing
from store.errors import UserError
from store.names import shown


def with_groups(listing: Listing, config: Any) -> Listing:
    """The listing with the group of each image, if the DatasetConfig `config` names groups.

    Raises:
        UserError: the pattern does not match an image, or images of one group are in two splits.
    """
    check_groups(config)
    if not is_grouped(config):
        return listing
    if config.group_regex is not None:
        pattern = re.compile(config.group_regex)
        splits = {name: _matched(split, pattern) for name, split in listing.splits.items()}
        listing = replace(listing, splits=splits, notes=(*listing.notes, *_note_of_parts(splits, pattern)))
    for first, second in combinations(listing.splits, 2):
        _check_apart(listing, first, second, config)
    return replace(listing, notes=(*listing.notes, *_note_of_folders(listing, config)))


def _note_of_parts(splits: dict[str, ImageSet], pattern: re.Pattern[str]) -> tuple[str, ...]:
    """What to say of a pattern with several parts in parentheses, of which one names the group."""
    if pattern.groups < 2:
        return ()
    name, group = splits["train"].name[0].decode(), splits["train"].group[0].decode()
    return (
        f"--group-regex {pattern.pattern}: of its {pattern.groups} parts in parentheses, the first names the "
        f"group of an image ({shown(name)} is of {shown(group)}); write others as (?:…)",
    )


def _note_of_folders(listing: Listing, config: Any) -> tuple[str, ...]:
    """What to say of a pattern that matches the folder of the split too, so that no group can be in two."""
    tops = [{group.partition(b"/")[0] for group in np.unique(of.group)} for of in listing.splits.values()]
    within = all((np.char.find(of.group, b"/") > 0).all() for of in listing.splits.values())
    if config.group_regex is None or len(tops) < 2 or not within or set.intersection(*tops):
        return ()
    first, second = (shown(min(top).decode()) for top in tops[:2])
    return (
        f"{groups_in_words(config)}: groups of different splits lie in different folders, such as {first}/ "
        f"and {second}/, so none can be in two splits; leave this folder out of what the pattern matches to "
        "see whether any is",
    )


def _matched(split: ImageSet, pattern: re.Pattern[str]) -> ImageSet:
    groups, unlike = [], []
    for name in split.name:
        found = pattern.search(name.decode())
        text = found and (found.group(1) if pattern.groups else found.group())
        groups.append((text or "").encode())
        if not text:
            unlike.append(name)
    if unlike:
        how = "does not match" if pattern.search(unlike[0].decode()) is None else "finds no group in"
        more = f", nor {len(unlike) - 1:,} more" if len(unlike) > 1 else ""
        raise UserError(
            f"--group-regex {pattern.pattern}: {how} {shown(unlike[0].decode())}{more}; it has to name the "
            "group of every image by its path below the root"
        )
    return replace(split, group=np.array(groups, dtype=bytes))


def _check_apart(listing: Listing, first: str, second: str, config: Any) -> None:
    splits = listing.splits[first], listing.splits[second]
    both = np.intersect1d(splits[0].group, splits[1].group)
    if not len(both):
        return
    group = both[0]
    names = [shown(split.name[np.argmax(split.group == group)].decode()) for split in splits]
    more = f"; {len(both):,} groups are in both" if len(both) > 1 else ""
    raise UserError(
        f"{groups_in_words(config)}: group {shown(group.decode())} is in {first} ({names[0]}) and in "
        f"{second} ({names[1]}){more}; put each into one split, or leave the option out"
    )
