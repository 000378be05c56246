"""A contest of three entries, its methods without averages, and stores of other features."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pandas as pd
import pytest

from finetune.contest.entries import Entry
from store.reader import FeatureStore

FEW = {
    "crt": Entry("crt", {"lr": (0.01, 0.1), "weight_decay": (0.0005, 0.01)}),
    "logit-adjustment": Entry("logit-adjustment", {"tau": tuple(n / 4 for n in range(11))}),
    "fsa": Entry("fsa", {"lr": (0.001, 0.01)}),
}


def of_methods(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a contest's table without that of an average."""
    return table[~table["entry"].str.startswith("average of ")]


@contextmanager
def other_row(path: str) -> Iterator[None]:
    """A store as if the features of its first row were others."""
    read = FeatureStore.read

    def changed(store, split):
        found = read(store, split)
        if str(store.path) != path or split != "train":
            return found
        pooled = found.pooled.copy()
        pooled[0] += 1
        return replace(found, pooled=pooled)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureStore, "read", changed)
        yield
