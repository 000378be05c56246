"""Which held-out splits a source has, and which are drawn from its training images by a fraction.

Nothing heavy is imported here, so that a wrong option fails at once.
"""

from typing import Any

from extract.sources.groups.options import check_groups
from store.errors import UserError

FRACTIONS = {"test": "test_fraction", "val": "val_fraction"}  # in the order in which they are drawn
SPELLINGS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def split_called(name: str) -> str | None:
    """The split that a folder or a word means, in any case; None if it means none."""
    return SPELLINGS.get(name.lower())


def fractions_of(config: Any) -> dict[str, float]:
    """The fractions that the DatasetConfig `config` asks for, by split, in the order of drawing."""
    asked = {split: getattr(config, option) for split, option in FRACTIONS.items()}
    return {split: fraction for split, fraction in asked.items() if fraction is not None}


def fractions_in_words(config: Any) -> str:
    """The fractions as options of the command line."""
    return " ".join(f"--{split}-fraction {value:g}" for split, value in fractions_of(config).items())


def check_held_out(config: Any) -> None:
    """Raise UserError for numbers of held-out images that are out of range, or do not go together."""
    check_groups(config)
    if config.val_per_class < 0:
        raise UserError(f"--val-per-class {config.val_per_class}: must be 0 or more")
    fractions = fractions_of(config)
    for split, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise UserError(
                f"--{split}-fraction {fraction:g}: must be between 0 and 1, the share of every class's images"
            )
    if sum(fractions.values()) >= 1:
        raise UserError(
            f"{fractions_in_words(config)}: leave nothing for training; their sum must be below 1"
        )
    if config.val_per_class and "val" in fractions:
        raise UserError(
            f"--val-per-class {config.val_per_class} {fractions_in_words(config)}: both hold out "
            "validation images; leave out one of the two"
        )


def with_test(
    splits: dict[str, Any], config: Any, where: object, missing: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The splits of a source with one for testing, unless a fraction makes it later.

    Without test images, validation images are the test set, as in ImageNet's own layout.

    Args:
        splits: what a source has, by split: folders, files or rows.
        config: the DatasetConfig.
        where: the root or the table, for messages.
        missing: what to say of `where` if there are no test images.

    Returns:
        The splits, and what the user should know.

    Raises:
        UserError: there are no test images, or a fraction of a split that exists.
    """
    notes = ()
    if "test" not in splits and "val" in splits and config.test_fraction is None:
        splits = {"train": splits["train"], "test": splits["val"]}
        notes = (
            f"{where}: has validation but no test images, so the former are the test set; hold out images "
            "to validate on with --val-fraction or --val-per-class",
        )
    for split in fractions_of(config):
        if split in splits:
            raise UserError(
                f"--{split}-fraction {getattr(config, FRACTIONS[split]):g}: {where} has a {split} split; "
                "leave the option out, or remove the split"
            )
    if "test" not in splits and config.test_fraction is None:
        raise UserError(
            f"{where}: {missing}, or pass --test-fraction 0.2 to hold test images out of every class"
        )
    return splits, notes
