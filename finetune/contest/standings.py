"""The standings of a contest: what each entry chose, how far it is behind, and who cannot be told apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from analysis.accuracy import MEASURES, SCORES
from analysis.bootstrap import resampled_accuracies
from analysis.joined import joined
from finetune.contest.folder import KeptHeads

ROUNDING = 1e-9  # of an accuracy in %
INTERVAL = (2.5, 97.5)  # percent of the resamples that lie below its ends


@dataclass(frozen=True)
class Finalist:
    """The configuration that an entry ends with.

    Attributes:
        entry, chosen: its name, and the values that it chose in words.
        heads: ids of its heads with every seed, for each store.
        at_edge: what it chose at an end of its grid, in words.
    """

    entry: str
    chosen: str
    heads: list[list[str]]
    at_edge: str = ""


def standings(
    finalists: list[Finalist],
    kept: list[KeptHeads],
    select_on: str,
    rank_by: str,
    measures: Sequence[str] = MEASURES,
) -> pd.DataFrame:
    """One row per entry, best first on val or cv.

    Args:
        finalists: of the entries; none has a head that diverged.
        kept: the heads of each store.
        select_on: "val" or "cv".
        rank_by: accuracy to rank by, a key of SCORES.
        measures: accuracies that mean the same on every store; all others are NaN.

    Returns:
        rank, entry, chosen, at_edge, n (heads), for these images and test the mean of every accuracy and its
        standard deviation (over stores, or over seeds if there is one store; NaN for one head), seconds of a
        head; for both `behind`: by how much the first is better, with `behind_low` and `behind_high`, the
        ends of a 95 % interval over resampled images, or groups of them; `together`, whether the images that
        chose cannot tell it apart from the first.
    """
    splits = select_on, "test"
    rows = [_row(one, kept, splits, measures) for one in finalists]
    score = f"{select_on}_{SCORES[rank_by]}_mean"
    order = sorted(range(len(rows)), key=lambda i: -round(rows[i][score], 9))  # of equals the earlier
    behind = {split: _behind([finalists[i] for i in order], kept, split, rank_by) for split in splits}
    table = []
    for place, i in enumerate(order):
        row = {"rank": place + 1} | rows[i]
        for split, (mean, low, high) in behind.items():
            row |= {f"{split}_behind": mean[place], f"{split}_behind_low": low[place]}
            row |= {f"{split}_behind_high": high[place]}
        table.append(row | {"together": bool(row[f"{select_on}_behind_low"] <= ROUNDING)})
    return pd.DataFrame(table)


def _row(
    finalist: Finalist, kept: list[KeptHeads], splits: Sequence[str], measures: Sequence[str]
) -> dict[str, Any]:
    rows = [[of.row(head) for head in heads] for of, heads in zip(kept, finalist.heads, strict=True)]
    every = [row for of_store in rows for row in of_store]
    found: dict[str, Any] = {"entry": finalist.entry, "chosen": finalist.chosen}
    found |= {"at_edge": finalist.at_edge, "n": len(every)}
    for split, measure in product(splits, MEASURES):
        name, is_common = f"{split}_{measure}", measure in measures
        of_store = [np.array([number(row, name) if is_common else np.nan for row in part]) for part in rows]
        values = of_store[0] if len(rows) == 1 else np.array([part.mean() for part in of_store])
        found[f"{name}_mean"] = float(np.mean([part.mean() for part in of_store]))
        found[f"{name}_std"] = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return found | {"seconds": float(np.mean([row["seconds"] for row in every]))}


def number(row: Mapping[str, Any], name: str) -> float:
    """An accuracy of a head; NaN if its group has no images, or if the head diverged."""
    return float("nan") if row.get(name) is None else row[name]


def _behind(
    finalists: list[Finalist], kept: list[KeptHeads], split: str, rank_by: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By how much the first is better than each: mean, and the ends of the interval, (E,) each.

    Stores of the same images see the same resamples; others are resampled apart.
    """
    images = [of_store.images(split) for of_store in kept]
    together: dict[bytes, np.ndarray] = {}  # by any of the stores that hold these images
    for of_store, of_images in zip(kept, images, strict=True):
        parts = of_store.together(split)
        together[of_images] = joined(parts, together[of_images]) if of_images in together else parts
    seeds = {of_images: seed for seed, of_images in enumerate(together)}
    differences, exact = [], []
    for i, (of_store, of_images) in enumerate(zip(kept, images, strict=True)):
        label = of_store.label(split)
        right = np.stack(
            [np.mean([of_store.right(head, split) for head in one.heads[i]], axis=0) for one in finalists]
        )
        alike = {"seed": seeds[of_images], "together": together[of_images]}
        resampled = resampled_accuracies(label, right, rank_by, **alike)
        differences.append(resampled[:, :1] - resampled)
        exact.append(_accuracy(label, right, rank_by))
    mean = np.mean(exact, axis=0)
    low, high = np.percentile(np.mean(differences, axis=0), INTERVAL, axis=0)
    return np.round(mean[0] - mean, 9) + 0.0, low, high  # equal are equal, and never −0


def _accuracy(label: np.ndarray, right: np.ndarray, rank_by: str) -> np.ndarray:
    """(E,) accuracies in % from (E, N) shares of heads that are right."""
    if rank_by == "overall":
        return 100 * right.mean(axis=1)
    return 100 * np.mean([right[:, label == c].mean(axis=1) for c in np.unique(label)], axis=0)
