"""Labels of classes and configurations in figures: one line each, short and unique."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain

from store.names import shown

LONGEST_NAME = 24  # characters of a class name on an axis
LONGEST_CONFIGURATION = 70  # characters of a configuration in a legend


def labels_of(names: Iterable[str], longest: int = LONGEST_NAME) -> list[str]:
    """A unique label for each name; long ones lose their middle, or the start that similar names share.

    Dollar signs are escaped, since matplotlib would set formulas. Labels are unique among the given names, so
    pass all that a figure shows; as a last resort, they are numbered.
    """
    lines = [shown(str(name)) for name in names]
    label = {line: _without_middle(line, longest) for line in lines}
    alike = _groups(label, label)
    while alike:
        group = alike.pop()
        start = max(0, _first_difference(group) - longest // 3)
        for line in group:
            cut = line[start : start + longest - 2]
            label[line] = f"{'…' * (start > 0)}{cut}{'…' * (len(line) > start + longest - 2)}"
        alike += _groups(group, label)
    for line in chain.from_iterable(_groups(label, label)):
        tag = f"#{lines.index(line)}"
        label[line] = label[line][: longest - len(tag)] + tag
    return [label[line].replace("$", r"\$") for line in lines]


def label_of(name: str, longest: int = LONGEST_NAME) -> str:
    """The label of a single name."""
    return labels_of([name], longest)[0]


def _without_middle(line: str, longest: int) -> str:
    if len(line) <= longest:
        return line
    return f"{line[: longest - longest // 3 - 1]}…{line[-(longest // 3) :]}"


def _first_difference(lines: Sequence[str]) -> int:
    """Length of the common prefix of different lines."""
    ends = min(lines), max(lines)
    return next((i for i, (a, b) in enumerate(zip(*ends, strict=False)) if a != b), len(ends[0]))


def _groups(lines: Iterable[str], label: dict[str, str]) -> list[Sequence[str]]:
    """Groups of lines with the same label."""
    of_label = defaultdict(list)
    for line in lines:
        of_label[label[line]].append(line)
    return [group for group in of_label.values() if len(group) > 1]
