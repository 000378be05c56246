"""What a source of images is, as the program knows it before anything heavy is imported."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extract.sources.listing import Listing


@dataclass(frozen=True)
class Source:
    """A source of images.

    Attributes:
        list: class names and images of every split, none of them subsampled. It is called with the root (an
            absolute folder, or `Path()` for a source without one) and the DatasetConfig, and raises UserError
            for images that cannot be used. Whatever is heavy, it imports itself.
        options: of DatasetConfig, those that this source takes and others do not. One that takes a root needs
            one.
        mirrored: whether a mirror image is one more image of the same class; None where that is known to
            the user alone.
        check: raises UserError for a root that cannot be listed, as far as that is seen without torch.
        files: whether images are files, each known by its name below the root.
    """

    list: Callable[[Path, Any], "Listing"]
    options: tuple[str, ...] = ()
    mirrored: bool | None = None
    check: Callable[[Path], None] = lambda root: None
    files: bool = False
