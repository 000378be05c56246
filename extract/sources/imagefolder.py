"""Class folders of image files: `ROOT/train/<class>/…`, an optional `val`, and `test`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.sources.source import Source
from store.errors import UserError

if TYPE_CHECKING:
    from extract.sources.listing import Listing


def list_image_folder(root: Path, config: Any) -> "Listing":
    """List class folders; the classes are the folders of `train`, sorted.

    Args:
        root: the folder.
        config: the DatasetConfig; `subfolders` says whether images in subfolders of a class count.

    Raises:
        UserError: a folder has another layout, or too few images.
    """
    from extract.sources.folders import list_folder
    from extract.sources.listing import Listing, listed_images

    check_folders_exist(root)
    class_names, splits = list_folder(root, config.subfolders)
    return Listing(class_names, {name: listed_images(*listed) for name, listed in splits.items()})


def check_folders_exist(root: Path) -> None:
    """Raise UserError if the root does not exist, or has no train/ or test/."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; --root must hold train/<class>/* and test/<class>/*")
    for split in ("train", "test"):
        if not (root / split).is_dir():
            found = ", ".join(sorted(p.name for p in root.iterdir())[:5]) or "nothing"
            raise UserError(
                f"{root}: has no {split}/ folder (found {found}); expected {split}/<class>/<image>"
            )


SOURCE = Source(
    list_image_folder, ("root", "skip_bad_images", "no_flip"), check=check_folders_exist, files=True
)
