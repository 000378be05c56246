"""Lists of classes that other programs keep in checkpoints, in the order of the FC layer's outputs."""

from collections.abc import Iterator, Mapping
from typing import Any

from extract.networks.foreign_files import METADATA
from store.errors import UserError
from store.names import shown

BY_NAME = ("class_to_idx", "label2id")  # numbers by name
BY_NUMBER = ("idx_to_class", "id2label")  # names by number
KEYS = ("classes", "class_names", "CLASSES", *BY_NAME, *BY_NUMBER, "categories", "names")
WITHIN = (
    "hyper_parameters",
    "hparams",
    "args",
    "config",
    "meta",
    METADATA,
)  # dictionaries that may hold them


def class_names_in(content: Any, where: object) -> list[str] | None:
    """The names of the classes that a checkpoint lists, in order; None if it lists none.

    Args:
        content: what its file holds.
        where: the file, for messages.

    Raises:
        UserError: it has two lists that differ.
    """
    found = dict(_lists(content))
    names = next(iter(found.values()), None)
    for key, other in found.items():
        if other != names:
            first = next(iter(found))
            raise UserError(
                f"{where}: has two lists of classes, {first} and {key}, which differ; name the order of the "
                "FC layer's outputs with --class-names FILE, a class in each line"
            )
    return names


def unread_lists(content: Any) -> list[str]:
    """The keys of what looks like a list of classes and gives no order: numbers from 1, names that repeat."""
    return [key for key, names in _found(content) if names is None]


def _lists(content: Any) -> Iterator[tuple[str, list[str]]]:
    yield from ((key, names) for key, names in _found(content) if names is not None)


def _found(content: Any) -> Iterator[tuple[str, list[str] | None]]:
    """Every key that may hold a list of classes with what it holds, and its names in order or None."""
    if not isinstance(content, Mapping):
        return
    for key in KEYS:
        if isinstance(content.get(key), Mapping | list | tuple):
            yield key, _as_names(key, content[key])
        elif isinstance(content.get(key), str) and {",", "\n"} & set(content[key]):
            yield key, None  # names in one text, which may have these in them
    for key in WITHIN:
        inner = content.get(key)
        if isinstance(inner, Mapping):
            yield from ((f"{key}.{name}", names) for name, names in _found(inner))


def _as_names(key: str, value: Any) -> list[str] | None:
    """Names in order, from a list, or from numbers by name or names by number; None for anything else."""
    if isinstance(value, Mapping):
        pairs = list(value.items())
        by_name = all(_is_number(number) for _, number in pairs) and key not in BY_NUMBER
        if by_name and not (all(_is_number(number) for number, _ in pairs) and key not in BY_NAME):
            pairs = [(number, name) for name, number in pairs]
        if not all(_is_number(number) for number, _ in pairs):
            return None
        pairs = [(int(number), name) for number, name in pairs]
        if sorted(number for number, _ in pairs) != list(range(len(pairs))):
            return None
        value = [name for _, name in sorted(pairs, key=lambda pair: pair[0])]
    if len(value) < 2:
        return None
    names = [str(name) for name in value if isinstance(name, str | int)]
    return names if len(set(names)) == len(value) else None


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, str) and value.isdecimal())


def in_words(names: list[str], n: int = 3) -> str:
    """The first of some names."""
    return ", ".join(map(shown, names[:n])) + (", …" if len(names) > n else "")
