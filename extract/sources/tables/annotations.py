"""iNaturalist's files of annotations, in the form of COCO: JSON with images, annotations and categories.

Images have an `id` and a `file_name`, annotations an `image_id` and a `category_id`, and categories, which
may be missing, an `id` and a `name`.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from extract.sources.tables.table import Table
from store.errors import UserError
from store.names import shown

EXPECTED = "expected iNaturalist's form: lists of images, annotations and (perhaps) categories"


def read_annotations(file: Path, text: str) -> Table:
    """The images of a file with their categories, one row for each annotation.

    Raises:
        UserError: it is not in this form, an image has no annotation, or an annotation no image or category.
    """
    content = _parsed(file, text)
    if not isinstance(content, dict):
        raise UserError(f"{file}: is a JSON list; {EXPECTED}")
    name_of = {}
    for number, (image_id, name) in enumerate(_pairs(file, content, "images", ("id", "file_name"), str), 1):
        if image_id in name_of:
            raise UserError(
                f"{file}, image {number}: id {image_id} is that of {shown(name_of[image_id])} too; give it "
                "another"
            )
        name_of[image_id] = name
    names = None if "categories" not in content else categories_of(file, content["categories"])
    paths, labels, annotated = [], [], set()
    pairs = _pairs(file, content, "annotations", ("image_id", "category_id"), int)
    for number, (image_id, category) in enumerate(pairs, 1):
        where = f"{file}, annotation {number}"
        if image_id not in name_of:
            raise UserError(f"{where}: there is no image {image_id}; remove it, or add the image")
        if names is not None and str(category) not in names:
            raise UserError(f"{where}: there is no category {category}; add it to categories")
        paths.append(name_of[image_id])
        labels.append(str(category))
        annotated.add(image_id)
    without = [image_id for image_id in name_of if image_id not in annotated]
    if without:
        n_more = len(without) - 1
        more = f", and {n_more:,} more have none" if n_more else ""
        raise UserError(
            f"{file}: image {without[0]} ({shown(name_of[without[0]])}) has no annotation{more}; remove "
            "images without a category"
        )
    values = {"path": paths, "label": labels}
    return Table(
        file,
        list(values),
        values,
        no_columns="a file of annotations",
        row="annotation",
        names={} if names is None else {"label": names},
    )


def categories_of(file: Path, categories: Any) -> dict[str, str]:
    """Names of categories by their ids as text, in ascending order of id.

    Raises:
        UserError: not a list of ids and names, or one is there twice.
    """
    pairs = sorted(_pairs(file, {"categories": categories}, "categories", ("id", "name"), str))
    for (first, name), (second, other) in pairwise(pairs):
        if first == second:
            raise UserError(
                f"{file}: category {first} has two names, {shown(name)} and {shown(other)}; remove one"
            )
    check_no_two(file, {str(category): name for category, name in pairs})
    return {str(category): name for category, name in pairs}


def check_no_two(file: Path, names: dict[str, str]) -> None:
    """Raise UserError if two classes have the same name."""
    number_of: dict[str, str] = {}
    for number, name in names.items():
        if (other := number_of.setdefault(name, number)) != number:
            raise UserError(
                f"{file}: classes {other} and {number} are both called {shown(name)}; rename one, or put "
                "their images into one"
            )


def read_categories(file: Path, text: str) -> dict[str, str]:
    """Names of categories by id, of a JSON list of them (categories.json) or a file of annotations.

    Raises:
        UserError: it has none, or not in this form.
    """
    content = _parsed(file, text)
    return categories_of(file, content.get("categories") if isinstance(content, dict) else content)


def _parsed(file: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: is not whole JSON ({str(error)[:100]})") from error


def _pairs(file: Path, content: Any, what: str, keys: tuple[str, str], kind: type) -> list[tuple[int, Any]]:
    """Two values of every entry of a list: a number, and one of the given kind."""
    entries = content.get(what)
    if not isinstance(entries, list):
        raise UserError(f"{file}: has no list of {what}; {EXPECTED}")
    pairs = []
    for number, entry in enumerate(entries, 1):
        values = [entry.get(key) if isinstance(entry, dict) else None for key in keys]
        for key, value, expected in zip(keys, values, (int, kind), strict=True):
            if type(value) is not expected or not str(value).strip() or (expected is int and value < 0):
                raise UserError(
                    f"{file}: entry {number} of {what} has {key} {shown(str(value)[:60])!r}, expected "
                    f"{'a whole number' if expected is int else 'text'}"
                )
        pairs.append((values[0], values[1]))
    return pairs
