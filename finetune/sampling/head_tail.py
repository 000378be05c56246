"""Head and tail classes (paper, sec. 5.4): a split of the classes that is independent of the shot groups."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.accuracy import PARTS
from analysis.head_tail import head_and_tail
from store.errors import UserError


@dataclass(frozen=True)
class HeadTail:
    """Class indices of the two parts, each in descending order of training count."""

    head: np.ndarray
    tail: np.ndarray

    def parts(self) -> dict[str, np.ndarray]:
        """Both parts, by name."""
        return {"head": self.head, "tail": self.tail}


def split_head_tail(class_counts: np.ndarray, head_ratio: float) -> HeadTail:
    """The largest classes that together hold at least `head_ratio` of the training samples, and the rest.

    The rest may be empty if classes are few or of similar size.

    Args:
        class_counts: (K,) training samples of each class; ties are ordered by class index.
        head_ratio: h_r in (0, 1).

    Raises:
        UserError: the ratio is out of range.
    """
    if not 0 < head_ratio < 1:
        raise UserError(f"--head-ratio {head_ratio}: must lie between 0 and 1")
    return HeadTail(*head_and_tail(class_counts, head_ratio))


def ratio_in_words(head_ratio: float | None) -> str:
    """What "head" means, in words; None if it differs between configurations."""
    if head_ratio is None:
        return "head: the largest classes with each configuration's own --head-ratio of the training images"
    return f"head: the largest classes with {100 * head_ratio:g} % of the training images"


def parts_of(facts: dict[str, Any]) -> dict[str, list[int]]:
    """Head and tail class ids, from the `facts` of config.json."""
    return {part: facts[f"{part}_classes"] for part in PARTS}
