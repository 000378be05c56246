"""Class folders of image files: `ROOT/train/<class>/…`, `val` and `test`; or `ROOT/<class>/…` alone."""

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.sources.held_out import split_called, with_test
from extract.sources.source import Source, check_file
from store.errors import UserError
from store.names import shown
from store.schema import SPLITS

if TYPE_CHECKING:
    from extract.sources.listing import Listing

NO_CLASSES = {"training", "testing", "dev", "eval", "evaluation"}  # class folders are never called so


def list_image_folder(root: Path, config: Any) -> "Listing":
    """List class folders; the classes are the folders of `train`, sorted, or in the order of `class_names`.

    Args:
        root: the folder.
        config: the DatasetConfig; `subfolders` says whether images in subfolders of a class count.

    Raises:
        UserError: a folder has another layout, or too few images, or `class_names` has other classes.
    """
    from extract.sources.class_order import in_order
    from extract.sources.folders import list_folder
    from extract.sources.listing import Listing, listed_images
    from extract.sources.tables.labels import read_class_names

    folders, notes = split_folders(root, config)
    class_names, listed = list_folder(root, folders, config.subfolders)
    splits = {name: listed_images(*of_split) for name, of_split in listed.items()}
    below = {name: "" if folder == root else f"{folder.name}/" for name, folder in folders.items()}
    listing = Listing(class_names, splits, below, notes)
    if config.class_names is None or config.class_order is not None:  # which was read from the file, once
        return listing
    return in_order(listing, read_class_names(Path(config.class_names)), config.class_names)


def split_folders(root: Path, config: Any) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The folder of every split of a root, in order; for classes directly below the root, itself as "train".

    Returns:
        The folders, and what the user should know.

    Raises:
        UserError: the root does not exist, or lacks a split, or has one twice.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; --root must hold train/<class>/* and test/<class>/*")
    names = sorted(path.name for path in root.iterdir() if path.is_dir())
    if not config.split_spellings:
        found = {name: root / name for name in SPLITS if name in names}
    else:
        found = _called_splits(root, names)
    if "train" not in found:
        if config.test_fraction is None or found or NO_CLASSES & {name.lower() for name in names}:
            raise _no_train(root, not found)
        return {"train": root}, ()
    missing = f"has no test/ folder (found {_listed(root)}); expected test/<class>/<image>"
    found, notes = with_test(found, config, root, missing)
    found = {name: found[name] for name in SPLITS if name in found}
    return found, (*notes, *_notes_of_links(root, found))


def _notes_of_links(root: Path, folders: dict[str, Path]) -> list[str]:
    """What to say of splits that are one folder, under two names."""
    return [
        f"{root}: {folders[first].name}/ and {folders[second].name}/ are one folder, so both splits have the "
        "same images"
        for first, second in combinations(folders, 2)
        if folders[first].samefile(folders[second])
    ]


def _called_splits(root: Path, names: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in names:
        if (split := split_called(name)) is None:
            continue
        if split in found:
            raise UserError(
                f"{root}: {found[split].name}/ and {name}/ both mean the {split} split; put their images "
                "into one folder, or rename one"
            )
        found[split] = root / name
    return found


def _no_train(root: Path, may_be_classes: bool) -> UserError:
    expected = "expected train/<class>/<image>"
    if may_be_classes:
        expected += ", or, if these folders are the classes, pass --test-fraction 0.2 to hold test images out"
    return UserError(f"{root}: has no train/ folder (found {_listed(root)}); {expected}")


def _listed(root: Path) -> str:
    return ", ".join(shown(name) for name in sorted(path.name for path in root.iterdir())[:5]) or "nothing"


def check_folders(root: Path, config: Any) -> None:
    """Raise UserError if the root does not exist, or lacks a split, or there are no class names."""
    split_folders(root, config)
    if config.class_names is not None and config.class_order is None:
        check_file("class_names", config.class_names)


SOURCE = Source(
    list_image_folder,
    ("root", "class_names", "val_fraction", "test_fraction", "group_regex", "skip_bad_images", "no_flip"),
    check=check_folders,
    files=True,
)
