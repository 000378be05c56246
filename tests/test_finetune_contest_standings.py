"""Standings from made-up heads: means, deviations, lags and intervals, counted once more."""

import numpy as np
import pytest

from finetune.contest.standings import Finalist, standings

CLASSES = {"val": [40, 20, 8], "test": [30, 30, 30]}  # images of each class
SHARES = {"a": (0.8, 0.75), "b": (0.78, 0.79), "c": (0.5, 0.45), "d": (0.8, 0.8)}  # right, in two stores


class Made:
    """The heads of a store, each right at random."""

    def __init__(self, number: int, images: bytes = b"same", group_size: int = 1):
        random = np.random.default_rng(number)
        self._images, self._right, self._group_size = images, {}, group_size
        self._label = {split: np.repeat(np.arange(3), counts) for split, counts in CLASSES.items()}
        for entry, share in SHARES.items():
            for seed in range(2):
                for split, label in self._label.items():
                    self._right[f"{entry}{seed}", split] = random.random(len(label)) < share[number]

    def right(self, head: str, split: str) -> np.ndarray:
        return self._right[head, split]

    def label(self, split: str) -> np.ndarray:
        return self._label[split]

    def together(self, split: str) -> np.ndarray:
        return np.arange(len(self._label[split])) // self._group_size

    def images(self, split: str) -> bytes:
        return self._images

    def row(self, head: str) -> dict[str, float]:
        found = {"seconds": 1.0}
        for split, label in self._label.items():
            right = self._right[head, split]
            found[f"{split}_overall"] = 100 * right.mean()
            by_class = [right[label == c].mean() for c in range(3)]
            found[f"{split}_balanced_accuracy"] = 100 * np.mean(by_class)
            found[f"{split}_few"] = 100 * by_class[2]
        return found


def finalists(n_stores: int) -> list[Finalist]:
    return [Finalist(entry, "lr=1", [[f"{entry}0", f"{entry}1"]] * n_stores) for entry in SHARES]


def accuracy(kept: Made, entry: str, split: str, by: str, drawn: np.ndarray | None = None) -> float:
    """Mean accuracy of an entry's two heads, perhaps on images drawn by class."""
    label = kept.label(split)
    right = np.mean([kept.right(f"{entry}{seed}", split) for seed in range(2)], axis=0)
    drawn = np.arange(len(label)) if drawn is None else drawn
    if by == "overall":
        return 100 * right[drawn].mean()
    return 100 * np.mean([right[drawn][label[drawn] == c].mean() for c in range(3)])


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("rank_by", ["balanced", "overall"])
@pytest.mark.parametrize("n_stores", [1, 2])
def test_lags_and_intervals_are_those_of_another_bootstrap(n_stores, rank_by, split):
    kept = [Made(number) for number in range(n_stores)]
    table = standings(finalists(n_stores), kept, "val", rank_by).set_index("entry")
    first = table.index[0]
    score = {"balanced": "balanced_accuracy", "overall": "overall"}[rank_by]
    assert first == table[f"val_{score}_mean"].idxmax()
    random = np.random.default_rng(9)
    label = kept[0].label(split)
    resamples = [
        np.concatenate([random.choice(np.flatnonzero(label == c), (label == c).sum()) for c in range(3)])
        for _ in range(1500)
    ]
    for entry, row in table.iterrows():
        mean = {e: np.mean([accuracy(one, e, split, rank_by) for one in kept]) for e in (first, entry)}
        assert row[f"{split}_{score}_mean"] == pytest.approx(mean[entry])
        assert row[f"{split}_behind"] == pytest.approx(mean[first] - mean[entry], abs=1e-9)
        lags = [
            np.mean(
                [
                    accuracy(one, first, split, rank_by, drawn) - accuracy(one, entry, split, rank_by, drawn)
                    for one in kept
                ]
            )
            for drawn in resamples
        ]
        low, high = np.percentile(lags, (2.5, 97.5))
        width = max(1e-9, high - low)  # ours is 1 to 7 % wider, see `resampled_accuracies`
        assert abs(row[f"{split}_behind_low"] - low) < 0.12 * width
        assert abs(row[f"{split}_behind_high"] - high) < 0.12 * width
        assert row["together"] == (row["val_behind_low"] <= 1e-9)
    assert table.loc[first, "together"]
    assert not table.loc["c", "together"]


def test_deviations_are_over_stores_or_else_over_seeds():
    for n_stores in (1, 2):
        kept = [Made(number) for number in range(n_stores)]
        table = standings(finalists(n_stores), kept, "val", "balanced").set_index("entry")
        heads = np.array([[one.row(f"b{seed}")["test_few"] for seed in range(2)] for one in kept])
        expected = heads[0].std(ddof=1) if n_stores == 1 else heads.mean(axis=1).std(ddof=1)
        assert table.loc["b", "test_few_std"] == pytest.approx(expected)
        assert table.loc["b", "test_few_mean"] == pytest.approx(heads.mean())
        assert np.isnan(table.loc["b", "test_many_mean"])  # no class of any store
        assert (table["n"] == 2 * n_stores).all()


def test_stores_of_other_images_are_resampled_apart():
    """The same labels alone do not make the same images; apart, the mean of two stores varies less."""
    same, apart = (
        standings(finalists(2), [Made(0), Made(0, images)], "val", "balanced").set_index("entry")
        for images in (b"same", b"other")
    )
    widths = [table.loc["c", "val_behind_high"] - table.loc["c", "val_behind_low"] for table in (same, apart)]
    assert widths[1] == pytest.approx(widths[0] / np.sqrt(2), rel=0.1)


def test_stores_of_the_same_images_share_what_one_of_them_knows_of_groups():
    """Else their resamples would not be the same ones, and their lags would average out."""
    ends = {}
    for sizes in ((2, 2), (2, 1), (1, 2), (1, 1)):
        kept = [Made(number, group_size=size) for number, size in enumerate(sizes)]
        table = standings(finalists(2), kept, "val", "balanced").set_index("entry")
        ends[sizes] = table[["val_behind_low", "val_behind_high"]].to_numpy()
    np.testing.assert_array_equal(ends[2, 1], ends[2, 2])
    np.testing.assert_array_equal(ends[1, 2], ends[2, 2])
    assert not np.array_equal(ends[1, 1], ends[2, 2])
    others = [Made(0, group_size=2), Made(1, images=b"others")]
    apart = standings(finalists(2), others, "val", "balanced").set_index("entry")
    assert not np.array_equal(apart[["val_behind_low", "val_behind_high"]].to_numpy(), ends[2, 2])
