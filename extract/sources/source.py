"""What the program knows of a source of images before it imports anything heavy."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.errors import UserError
from store.options import flag

if TYPE_CHECKING:
    from extract.sources.listing import Listing


@dataclass(frozen=True)
class Source:
    """A source of images.

    Attributes:
        list: class names and images of every split, without any subset taken. It is called with the root (an
            absolute folder, or `Path()` for a source without one) and the DatasetConfig, and raises UserError
            for images that cannot be used. It imports heavy packages itself.
        options: the options of DatasetConfig that this source takes and others do not.
        mirrored: whether a mirror image belongs to the same class; None if only the user knows.
        check: is called like `list`, and raises UserError for a root that cannot be listed, as far as can be
            seen without torch.
        default_root: the root for a DatasetConfig without one; None if a source that takes a root needs one.
        files: whether images are files, identified by their names below the root.
    """

    list: Callable[[Path, Any], "Listing"]
    options: tuple[str, ...] = ()
    mirrored: bool | None = None
    check: Callable[[Path, Any], None] = lambda root, config: None
    files: bool = False
    default_root: Callable[[Any], str | None] | None = None


def check_file(option: str, file: str) -> None:
    """Raise UserError if a file that an option names does not exist."""
    if not Path(file).is_file():
        found = "a folder" if Path(file).is_dir() else "nothing"
        raise UserError(f"{flag(option)} {file}: expected a file, found {found}")
