"""Images and labels that tables list: `train --train FILE [--val FILE] [--test FILE]`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.sources.held_out import with_test
from extract.sources.source import Source, check_file
from extract.sources.tables.files import folder_of, notes_of_missing_parts, table_files
from store.errors import UserError
from store.schema import SPLITS

if TYPE_CHECKING:
    from extract.sources.listing import Listing


def list_tables(root: Path, config: Any) -> "Listing":
    """List the images of tables, sorted by class and path, whatever the order of rows.

    Images that tables hold themselves are sorted by file and row, since they are read in that order.

    Args:
        root: the folder that paths are relative to.
        config: the DatasetConfig.

    Raises:
        UserError: a table, a row or an image cannot be used.
    """
    import numpy as np

    from extract.sources.listing import Listing, listed_images
    from extract.sources.tables.labels import classes_of
    from extract.sources.tables.odd_labels import notes_of_groups
    from extract.sources.tables.paths import missing_below
    from extract.sources.tables.rows import read_rows

    check_tables(root, config)
    rows = read_rows(root, config)
    rows.notes += [*notes_of_missing_parts(config), *notes_of_groups(rows)]
    class_names, class_of = classes_of(rows, config.class_names, config.class_order)
    gone = missing_below(root, rows, set(config.skipped))
    of_split: dict[str, list[tuple[int, str]]] = {split: [] for split in SPLITS}
    for name, split in rows.split.items():
        of_split[split].append((class_of[rows.label[name]], name))
    in_order = (lambda image: image[1]) if rows.embedded else None
    present = {split: sorted(images, key=in_order) for split, images in of_split.items() if images}
    missing = "has no test images; pass --test with a table of them"
    present, notes = with_test(present, config, config.train, missing)
    splits = {
        split: listed_images(
            [rows.embedded.get(name) or root / name for _, name in images],
            [class_id for class_id, _ in images],
        )
        for split, images in present.items()
    }
    if rows.group:
        splits = {
            split: replace(images, group=np.array([rows.group[name].encode() for _, name in present[split]]))
            for split, images in splits.items()
        }
    return Listing(class_names, splits, notes=(*rows.notes, *notes), missing=gone)


def check_tables(root: Path, config: Any) -> None:
    """Raise UserError if a table or the root does not exist."""
    if config.train is None:
        raise UserError("--dataset table needs --train, a table with the path and the class of every image")
    table_files(config)
    if config.class_names is not None and config.class_order is None:
        check_file("class_names", config.class_names)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; --root must hold the images")
    if config.root is None:
        for split in ("val", "test"):
            other = getattr(config, split)
            if other is not None and folder_of(other).resolve() != root:
                raise UserError(
                    f"--{split} {other}: is in another folder than --train {config.train}; name the folder "
                    "that the paths of both are relative to with --root"
                )


SOURCE = Source(
    list_tables,
    (
        "root",
        "train",
        "val",
        "test",
        "path_column",
        "label_column",
        "split_column",
        "class_names",
        "val_fraction",
        "test_fraction",
        "group_column",
        "group_regex",
        "skip_bad_images",
        "no_flip",
    ),
    check=check_tables,
    files=True,
    default_root=lambda config: None if config.train is None else str(folder_of(config.train)),
)
