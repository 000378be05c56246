"""Classes of labels: names or whole numbers, in their own order or in that of a file of names."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path

from extract.sources.tables.annotations import read_categories
from extract.sources.tables.odd_labels import DECIMAL, NUMBER, notes_of_labels
from extract.sources.tables.rows import Rows
from store.errors import UserError, check_utf8
from store.names import composed, shown


def classes_of(
    rows: Rows, names_file: str | None, known: Sequence[str] | None = None
) -> tuple[list[str], dict[str, int]]:
    """The names of the classes, in order, and the class of each label. Every class has training images.

    Args:
        rows: the images.
        names_file: file of the names of classes, which orders them and names numbers; None if there is none,
            and the names that the tables have, if any, do. Classes without training images are left out, with
            a note.
        known: the names that were found when the file was first read, if it was; it may be gone since.

    Raises:
        UserError: labels are neither names nor whole numbers, a number or name is missing, no training image
            has a label, or there are fewer than two classes.
    """
    trained = {rows.label[name] for name, split in rows.split.items() if split == "train"}
    if not trained:
        raise UserError(f"{rows.place(next(iter(rows.row)))}: no row is of a training image; add some")
    _check_no_decimals(rows)
    if rows.names is not None and names_file is None:
        _check_no_gaps(rows)
    for name, label in rows.label.items():
        if label not in trained:
            raise UserError(
                f"{rows.place(name)}: label {shown(label)} is that of no training image; add some, or "
                "remove the row"
            )
    if len(trained) < 2:
        raise UserError(
            f"{rows.place(next(iter(rows.row)))}: every training image is labelled {shown(trained.pop())}; "
            "at least two classes are needed"
        )
    if names_file is not None:
        file = Path(names_file)
        if known is not None and not file.is_file():
            names, by_number = {str(number): name for number, name in enumerate(known)}, False
        else:
            names, by_number = read_numbered_names(file)
        if rows.names is not None and not by_number:
            names, by_number = _in_their_order(rows, trained, file, names), True
        class_names, class_of = _named(rows, trained, file, names, by_number)
    elif rows.names is not None:
        class_names, class_of = _named(rows, trained, rows.named_by.file, rows.names, by_number=True)
    elif all(map(_is_number, trained)):
        class_names = _numbered(rows, trained)
        class_of = {label: int(label) for label in trained}
    else:
        rows.notes += notes_of_labels(rows)
        class_names = sorted(trained)
        class_of = {label: class_id for class_id, label in enumerate(class_names)}
    check_utf8(*class_names)
    return class_names, class_of


def read_class_names(file: Path) -> list[str]:
    """The names of classes in a file, in the order of their numbers.

    Raises:
        UserError: as `read_numbered_names`.
    """
    return list(read_numbered_names(file)[0].values())


def read_numbered_names(file: Path) -> tuple[dict[str, str], bool]:
    """The names of classes in a file, by their numbers as text.

    Args:
        file: a name in each line, numbered from 0 on, or categories in JSON (`read_categories`).

    Returns:
        The names in order, and whether labels must be the numbers, as the ids of categories.

    Raises:
        UserError: it cannot be read, or a name is empty or stands there twice.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"--class-names {file}: cannot be read ({why})") from error
    if file.suffix.lower() == ".json":
        return read_categories(file, text), True
    names, line_of = [line.strip() for line in text.rstrip("\n").split("\n")], dict[str, int]()
    for line, name in enumerate(names, 1):
        if not name:
            raise UserError(f"{file}, line {line}: is empty; expected the name of a class in every line")
        if (before := line_of.setdefault(name, line)) != line:
            raise UserError(f"{file}, line {line}: {shown(name)} stands in line {before} already; rename one")
    return {str(number): name for number, name in enumerate(names)}, False


def _is_number(label: str) -> bool:
    is_short = len(label) < 10  # longer ones number no classes, and may be too long for an int
    return is_short and label.isascii() and label.isdecimal() and label == str(int(label))  # 007 is a name


def _check_no_decimals(rows: Rows) -> None:
    labels = set(rows.label.values())
    if not all(NUMBER.fullmatch(label) or DECIMAL.fullmatch(label) for label in labels):
        return
    for name, label in rows.label.items():
        if DECIMAL.fullmatch(label):
            raise UserError(
                f"{rows.place(name)}: label {label} is a number with decimals, but labels are names or "
                "whole numbers; convert them, or name another --label-column"
            )


def _numbered(rows: Rows, trained: set[str]) -> list[str]:
    """The numbers from 0 on as names of classes."""
    largest = max(trained, key=int)
    if n_missing := int(largest) + 1 - len(trained):
        missing = next(k for k in count() if str(k) not in trained)
        others = f" and {n_missing - 1:,} more" if n_missing > 1 else ""
        raise UserError(
            f"{rows.first_of(largest)}: class {largest}, but no training image "
            f"is of class {missing}{others}; number classes from 0 without gaps, or pass --class-names "
            "with a name for each"
        )
    return [str(k) for k in range(len(trained))]


def _check_no_gaps(rows: Rows) -> None:
    """Raise UserError if a number between those of named classes names none."""
    file, numbers = rows.named_by.file, [int(number) for number in rows.names]
    missing = next((k for k in range(min(numbers), max(numbers)) if str(k) not in rows.names), None)
    if missing is not None:
        raise UserError(
            f"{file}: has classes {min(numbers)} to {max(numbers)}, but no class {missing}; number them "
            f"without gaps, or pass --class-names {file} to take them in the order of their numbers"
        )


def _in_their_order(rows: Rows, trained: set[str], file: Path, names: dict[str, str]) -> dict[str, str]:
    """Names by number, in the order of a file's names, for tables that have names for their numbers.

    Names of the tables' own are put in order; others stand in their place, number by number.

    Args:
        rows: the images.
        trained: labels of training images.
        file: that the names are from.
        names: in order, numbered from 0 on.

    Raises:
        UserError: the file has only some of the tables' names.
    """
    number_of = {composed(name): number for number, name in rows.names.items()}
    own = {composed(name): name for number, name in rows.names.items() if number in trained}
    given = {composed(name) for name in names.values()}
    if own.keys() <= given:
        return {number_of[c]: name for name in names.values() if (c := composed(name)) in number_of}
    if own.keys() & given:
        missing = next(name for form, name in own.items() if form not in given)
        raise UserError(
            f"{file}: lacks {shown(missing)}, a class of {rows.named_by.file}, but has others of its names; "
            "write all of them, in the order that classes are to have, or none"
        )
    if (number := next((number for number in names if number in rows.names), None)) is not None:
        rows.notes.append(
            f"{file}: its names stand for the numbers of classes, in place of those in {rows.named_by.file} "
            f"(class {number} is {shown(names[number])}, there {shown(rows.names[number])})"
        )
    return names


def _named(
    rows: Rows, trained: set[str], file: Path, names: dict[str, str], by_number: bool
) -> tuple[list[str], dict[str, int]]:
    """The names of classes with training images, in the order of `names`, and the class of each label.

    Args:
        rows: the images.
        trained: labels of training images.
        file: that the names are from.
        names: by number.
        by_number: whether labels must be numbers; else they may be names too.
    """
    by_number = by_number or (all(map(_is_number, trained)) and not trained <= set(names.values()))
    name_of = names if by_number else {name: name for name in names.values()}
    place = {label: position for position, label in enumerate(name_of)}
    for name, label in rows.label.items():
        if label in place:
            continue
        numbers = list(names)
        known = (
            f"has names for {numbers[0]} to {numbers[-1]}" if by_number else f"has {len(names)} other names"
        )
        raise UserError(f"{rows.place(name)}: label {shown(label)} is not in {file}, which {known}; add it")
    used = sorted(trained, key=place.__getitem__)
    empty = [name for label, name in name_of.items() if label not in trained]
    if empty:
        rows.notes.append(
            f"{file}: {len(empty)} of {len(names)} classes have no training images and are left out (the "
            f"first is {shown(empty[0])})"
        )
    return [name_of[label] for label in used], {label: class_id for class_id, label in enumerate(used)}
