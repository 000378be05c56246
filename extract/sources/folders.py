"""Class folders: which files below them are images, and which are passed over.

Images of a class are sorted by their paths within its folder, written with `/`, code point by code point.
"""

import os
from pathlib import Path

from extract.sources.content import image_extensions, is_image
from extract.sources.held_out import split_called
from store.errors import UserError
from store.names import composed, shown
from store.notes import note

KNOWN = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's
VALIDATION = ("val", "valid", "validation", "dev")  # names of folders, in any case, that may be meant for it

NO_IMAGE = ("file that is not an image", "files that are not images")
EMPTY = ("empty file", "empty files")
BROKEN = ("broken link", "broken links")
LOOP = ("link to a folder that holds it", "links to folders that hold them")
OUTSIDE = ("image outside of class folders", "images outside of class folders")
HIDDEN = ("hidden", "hidden")


class PassedOver:
    """Files that are not images of a class: a count and the alphabetically first name for each reason."""

    def __init__(self, root: Path):
        self.root = root
        self._counts: dict[tuple[str, str], int] = {}
        self._first: dict[tuple[str, str], str] = {}

    def add(self, reason: tuple[str, str], path: str) -> None:
        """Count a file or folder below the root."""
        name = path[len(str(self.root)) :].lstrip("/")
        self._counts[reason] = self._counts.get(reason, 0) + 1
        self._first[reason] = min(name, self._first.get(reason, name))

    def add_all(self, other: "PassedOver") -> None:
        """Add the counts of another."""
        for reason, n in other._counts.items():
            first = other._first[reason]
            self._counts[reason] = self._counts.get(reason, 0) + n
            self._first[reason] = min(first, self._first.get(reason, first))

    def __str__(self) -> str:
        parts = []
        for reason in (NO_IMAGE, EMPTY, BROKEN, LOOP, OUTSIDE, HIDDEN):
            if n := self._counts.get(reason, 0):
                first = self._first[reason]
                parts.append(f"{n:,} {reason[n > 1]} ({shown(first)}{', …' if n > 1 else ''})")
        return ", ".join(parts)


def list_folder(
    root: Path, folders: dict[str, Path], subfolders: bool
) -> tuple[list[str], dict[str, tuple[list[Path], list[int]]]]:
    """Class names, sorted, and the images' paths and classes for every split.

    Args:
        root: holds the folders, for notes.
        folders: of every split, each with `<class>/…`; "train" must be among them.
        subfolders: whether images in subfolders of a class count, files with the extension of any image
            format, and files that only their content shows to be images; not so in version 0.1.

    Raises:
        UserError: an empty split, fewer than two classes, a class folder without
            images, or a val or test class that train does not have.
    """
    passed = PassedOver(root) if subfolders else None
    present = {split: _class_folders(folder, passed) for split, folder in folders.items()}
    class_names = present["train"]
    if len(class_names) < 2:
        found = ", ".join(map(shown, class_names)) or "none"
        raise UserError(f"{folders['train']}: at least two class folders are needed, found {found}")
    splits = {s: _list_split(folders[s], class_names, present[s], passed) for s in present}
    if passed is not None:
        if str(passed):
            note(f"passed over under {root}/: {passed}")
        if folders["train"] != root:
            _note_unused(root, folders)
    return class_names, splits


def images_below(folder: Path) -> list[str]:
    """Paths of all images below a folder, relative to it, sorted; a note counts what is passed over."""
    passed = PassedOver(folder)
    found = sorted(_images_below(folder, passed))
    if str(passed):
        note(f"passed over under {folder}/: {passed}")
    return found


def broken_links(folder: Path) -> list[str]:
    """Links below a folder that lead to nothing, relative to it, sorted.

    Those that are hidden, or have the extension of something else than images, do not count.
    """
    found = []
    for here, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(here, name)
            broken = os.path.islink(path) and not os.path.exists(path)
            if broken and not _is_hidden(name, None) and _may_be_image(name):
                found.append(os.path.relpath(path, folder).replace(os.sep, "/"))
    return sorted(found)


def _note_unused(root: Path, folders: dict[str, Path]) -> None:
    for name in sorted(os.listdir(root)):
        folder = root / name
        if name.lower() in VALIDATION and folder not in folders.values() and folder.is_dir():
            note(f"{folder}/ is not used; validation images are looked for in val/, valid/ or validation/")


def _list_split(
    folder: Path, class_names: list[str], present: list[str], passed: PassedOver | None
) -> tuple[list[Path], list[int]]:
    folder_of = _folders_of(folder, class_names, present)
    if not present:
        raise UserError(f"{folder}: holds no class folders; expected {folder.name}/<class>/<image>")
    paths, label, of_classes = [], [], []
    for class_id, name in enumerate(class_names):
        if name not in folder_of:
            continue
        of_class = folder / folder_of[name]
        if passed is None:
            files, here = _images_in(of_class), ""
        else:
            here = PassedOver(passed.root)
            files = _images_below(of_class, here)
            passed.add_all(here)
        if not files:
            found = f", but {here}" if str(here) else ""
            kinds = ", ".join(KNOWN)
            raise UserError(f"{of_class}: holds no images ({kinds}){found}; add some or remove it")
        of_classes.append((of_class, files))
        paths += [of_class / file for file in sorted(files)]
        label += [class_id] * len(files)
    if passed is not None:
        _note_splits_within(of_classes)
    return paths, label


def _note_splits_within(of_classes: list[tuple[Path, list[str]]]) -> None:
    """Note folders within classes that are called train and test: `<class>/train` for `train/<class>`."""
    found = []
    for of_class, files in of_classes:
        tops = {file.partition("/")[0] for file in files if "/" in file}
        if len({split_called(top) for top in tops} - {None}) > 1:
            found.append((of_class, " and ".join(f"{top}/" for top in sorted(tops) if split_called(top))))
    if found:
        more = f" ({len(found):,} classes have such folders)" if len(found) > 1 else ""
        note(
            f"{found[0][0]}/: has {found[0][1]}{more}, whose images are all taken as of the class and its "
            "split; if these are splits, put them above the classes (train/<class>/…), or list the images in "
            "a table"
        )


def _folders_of(folder: Path, class_names: list[str], present: list[str]) -> dict[str, str]:
    """The folder of each class that has one; its name may be in another Unicode form than the class."""
    classes, in_form = set(class_names), {composed(name): name for name in class_names}
    class_of = {name: name if name in classes else in_form.get(composed(name)) for name in present}
    folder_of: dict[str, str] = {}
    for name, class_name in class_of.items():
        if class_name is None:
            raise UserError(
                f"{folder / name}: class {name!r} is not among the {len(class_names)} classes of train; "
                "rename or remove the folder"
            )
        other = folder_of.setdefault(class_name, name)
        if other != name:
            raise UserError(
                f"{folder}: {other!a} and {name!a} are the same class in two Unicode forms; put their "
                "images into one folder"
            )
        if name != class_name:
            note(f"{folder / name}: is in another Unicode form than the class of train; taken as the same")
    return folder_of


def _class_folders(split: Path, passed: PassedOver | None) -> list[str]:
    names = []
    with os.scandir(split) as entries:
        for entry in entries:
            if _is_folder(entry) and not _is_hidden(entry.name, passed):
                names.append(entry.name)
            elif passed is not None:
                passed.add(_reason(entry) or OUTSIDE, entry.path)
    return sorted(names)


def _images_in(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [e.name for e in entries if _is_known(e.name) and e.name[0] != "." and _is_file(e)]


def _images_below(folder: Path, passed: PassedOver) -> list[str]:
    """Paths of images relative to a class folder, unsorted; links to folders are followed."""
    found, pending = [], [("", (os.path.realpath(folder),))]
    while pending:
        below, way = pending.pop()  # way: real paths of the folders above, since links can form loops
        with os.scandir(folder / below) as entries:
            for entry in entries:
                name = below + entry.name
                if _is_folder(entry) and not _is_hidden(entry.name, passed):
                    real = os.path.realpath(entry.path) if entry.is_symlink() else f"{way[-1]}/{entry.name}"
                    if any(f"{step}/".startswith(f"{real}/") for step in way):
                        passed.add(LOOP, entry.path)
                    else:
                        pending.append((f"{name}/", (*way, real)))
                elif reason := _reason(entry):
                    passed.add(reason, entry.path)
                else:
                    found.append(name)
    return found


def _reason(entry: os.DirEntry) -> tuple[str, str] | None:
    """Why a folder's entry is not an image, None if it is. A file with an image's extension is not opened.

    Whether it can be read is checked later: an unreadable file with an image's extension is an error, and not
    passed over.
    """
    if _is_hidden(entry.name, True):
        return HIDDEN
    if not _is_file(entry):
        return NO_IMAGE if os.path.exists(entry.path) else BROKEN
    if _is_known(entry.name) or _extension(entry.name) in image_extensions():
        return None
    if not entry.stat().st_size:
        return EMPTY
    return None if is_image(entry.path) else NO_IMAGE


def _is_hidden(name: str, passed: object) -> bool:
    # macOS adds this folder to zip files and hides it; version 0.1 took it for a class.
    return name.startswith(".") or (passed is not None and name == "__MACOSX")


def _is_known(name: str) -> bool:
    return _extension(name) in KNOWN


def _may_be_image(name: str) -> bool:
    return _is_known(name) or _extension(name) in {"", *image_extensions()}


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _is_file(entry: os.DirEntry) -> bool:
    # An entry itself raises an error for a link that leads to itself.
    return os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file()


def _is_folder(entry: os.DirEntry) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
