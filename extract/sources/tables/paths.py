"""Checks that the images of a table are files below the root."""

import os
from collections.abc import Container
from pathlib import Path

from extract.sources.tables.rows import Rows
from store.errors import UserError
from store.names import alike, shown


def missing_below(root: Path, rows: Rows, skipped: Container[str]) -> str | None:
    """Check all images of a table; folders are read once each, so that a million images take seconds.

    Args:
        root: absolute, without links.
        rows: of the images.
        skipped: names of images that training left out, which may be gone.

    Returns:
        Why the table cannot be used if images are not there, naming the first; None if all are.

    Raises:
        UserError: an image is reached through a link that leads out of the root.
    """
    of_folder: dict[str, list[str]] = {}
    for name in rows.row.keys() - rows.embedded.keys() if rows.embedded else rows.row:
        of_folder.setdefault(os.path.dirname(name), []).append(name)
    missing = []
    for folder, names in of_folder.items():
        real = os.path.realpath(root / folder)
        files, links = _files_and_links(real)
        for name in names:
            file = os.path.basename(name)
            if file not in files and os.path.isfile(root / name):  # perhaps in another Unicode form
                links.add(file)
            elif file not in files and name not in skipped:
                missing.append(name)
                continue
            target = os.path.realpath(root / name) if file in links else real
            if not _is_below(target, root):
                raise UserError(
                    f"{rows.place(name)}: {shown(name)} leads out of {root}, to {shown(target)}; name the "
                    "folder that holds the images with --root"
                )
    if not missing:
        return None
    n_more = len(missing) - 1
    others = f"; {n_more:,} more {'are' if n_more > 1 else 'is'} missing" if n_more else ""
    return (
        f"{rows.place(missing[0])}: {shown(str(root / missing[0]))} is not there{_near(root, missing[0])}"
        f"{others}; paths are relative to {root}, which --root can change"
    )


def _near(root: Path, name: str) -> str:
    """What to say of a file that may be meant: with / for \\, other spaces, case, Unicode form, extension."""
    if "\\" in name and (root / name.replace("\\", "/")).is_file():
        return ", but with / for \\ it is"
    folder, file = os.path.split(name.strip())
    stem = os.path.splitext(file)[0] or file
    here = os.listdir(root / folder) if (root / folder).is_dir() else []
    by_spelling = {alike(other): other for other in here}
    by_stem = {os.path.splitext(other)[0]: other for other in here}
    found = by_spelling.get(alike(file)) or by_stem.get(file) or by_stem.get(stem)
    return "" if found is None else f", but {found!r} is"


def _files_and_links(folder: str) -> tuple[set[str], set[str]]:
    """Names of the files in a folder, and of the links among them; none if there is no such folder."""
    files, links = set(), set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    if os.path.isfile(entry.path):
                        files.add(entry.name)
                        links.add(entry.name)
                elif entry.is_file():
                    files.add(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    return files, links


def _is_below(path: str, root: Path) -> bool:
    return path == str(root) or path.startswith(os.path.join(str(root), ""))
