"""Every source of images, by name, and the errors for options that a source does not take.

A new source is a file with a `Source` and a line of SOURCES. Nothing heavy is imported here, so that a wrong
option fails at once.
"""

from collections.abc import Iterable
from typing import Any

from extract.sources import cifar, digits, imagefolder
from extract.sources.source import Source
from extract.sources.tables import listed
from store.errors import UserError
from store.options import registered

SOURCES = {
    "digits": digits.SOURCE,
    "cifar10": cifar.CIFAR10,
    "cifar100": cifar.CIFAR100,
    "imagefolder": imagefolder.SOURCE,
    "table": listed.SOURCE,
}
# The default source: without a root, with one, and with a table.
WITHOUT_ROOT, WITH_ROOT, WITH_TABLE = "digits", "imagefolder", "table"
_OF_TABLES = "is for a table of images, which --train names, but {source} has none; leave it out"
NOT_TAKEN = {  # by the option that a source does not take
    "root": "--root {value}: {source} is embedded and has no folder; leave out --root, or name another "
    f"--dataset ({WITH_ROOT} is what --root alone means)",
    "download": "--download: there is nothing to download for {source}; leave it out, or name --dataset "
    "{takers}",
    "val_fraction": "--val-fraction {value:g}: is for image files, but {source} has none; leave it out, or "
    "use --val-per-class",
    "test_fraction": "--test-fraction {value:g}: is for image files without a test split, but {source} has a "
    "split; leave it out",
    "train": f"--train {{value}}: {_OF_TABLES}, or leave out --dataset",
    "val": f"--val {{value}}: {_OF_TABLES}",
    "test": f"--test {{value}}: {_OF_TABLES}",
    "path_column": f"--path-column {{value}}: {_OF_TABLES}",
    "label_column": f"--label-column {{value}}: {_OF_TABLES}",
    "split_column": f"--split-column {{value}}: {_OF_TABLES}",
    "class_names": "--class-names {value}: orders the classes of folders and tables, but those of {source} "
    "have an order; leave it out",
    "group_column": f"--group-column {{value}}: {_OF_TABLES}",
    "group_regex": "--group-regex {value}: is for paths of image files, but {source} has none; leave it out",
    "skip_bad_images": "--skip-bad-images: is for image files, but {source} has none; leave it out",
    "no_flip": "--no-flip: {source} is never mirrored; leave it out",
}


def source_names() -> Iterable[str]:
    """The valid names of `--dataset`."""
    return SOURCES


def meant_source(root: str | None, train: str | None) -> str:
    """The name of the default source, with this root and table of training images."""
    if train is not None:
        return WITH_TABLE
    return WITHOUT_ROOT if root is None else WITH_ROOT


def find_source(name: str) -> Source:
    """The source with a name.

    Raises:
        UserError: there is none.
    """
    return registered("--dataset", SOURCES, name)


def idle_options(name: str, values: Any) -> list[str]:
    """Options that are set in the DatasetConfig `values` although the source does not take them."""
    taken = find_source(name).options
    return [
        option for option in NOT_TAKEN if getattr(values, option) not in (None, False) and option not in taken
    ]


def check_no_idle_options(name: str, values: Any) -> None:
    """Raise UserError for an option that is set although the source does not take it."""
    for option in idle_options(name, values):
        takers = " or ".join(other for other, source in SOURCES.items() if option in source.options)
        words = {"value": getattr(values, option), "source": name, "takers": takers}
        raise UserError(NOT_TAKEN[option].format(**words))
