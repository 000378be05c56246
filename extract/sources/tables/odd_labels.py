"""Labels that are taken as names of classes and may be none: empty values in words, numbers among names."""

import re
from decimal import Decimal

from extract.sources.tables.rows import Rows
from store.names import shown

NUMBER = re.compile(r"[+-]?\d+")
DECIMAL = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?")
EMPTY = {"nan", "null", "none", "n/a", "na", "<na>", "nat"}  # as programs write empty values


def notes_of_labels(rows: Rows) -> list[str]:
    """What to say of labels, each of which is the name of a class."""
    labels = set(rows.label.values())
    notes = []
    empty = sorted(label for label in labels if label.lower() in EMPTY)
    if empty:
        notes.append(
            f"{rows.first_of(empty[0])}: label {empty[0]} is how empty values are written, and is taken as "
            "the name of a class; fill it in or remove its rows, unless it is one"
        )
    labels -= {*empty}
    numbers = sorted(label for label in labels if NUMBER.fullmatch(label) or DECIMAL.fullmatch(label))
    negative = [label for label in numbers if label.startswith("-")]
    odd = numbers if len(numbers) < len(labels) else negative
    if odd and len(odd) < len(labels):
        others = "names" if odd is numbers else "numbers from 0 on"
        notes.append(
            f"{rows.first_of(odd[0])}: label {odd[0]} is a number where others are {others}, such as "
            f"{shown(min(labels - {*odd}))}; all are taken as names of classes"
        )
    return notes + _notes_of_spellings(rows, numbers)


def _notes_of_spellings(rows: Rows, numbers: list[str]) -> list[str]:
    """What to say of one number that is written in two ways, such as 7 and 07."""
    first: dict[Decimal, str] = {}
    twice = next((text for text in numbers if first.setdefault(Decimal(text), text) != text), None)
    if twice is None:
        return []
    return [
        f"{rows.first_of(twice)}: labels {first[Decimal(twice)]} and {twice} are one number, but two names "
        "of classes; write them alike"
    ]


def notes_of_groups(rows: Rows) -> list[str]:
    """What to say of groups that are none, but keep all of their images together."""
    empty = [name for name, group in rows.group.items() if group.lower() in EMPTY]
    if len(empty) < 2:
        return []
    return [
        f"{rows.place(empty[0])}: group {rows.group[empty[0]]} is how empty values are written, and is taken "
        f"as one group of {len(empty):,} images; fill it in, unless they belong together"
    ]
