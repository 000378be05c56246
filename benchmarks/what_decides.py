"""What decides whether fused samples help: figures of each store beside what fused samples gain there.

Usage: python benchmarks/what_decides.py FIGURE.png CONTEST=STORE[,STORE]..., a folder of each contest and its
stores. Gains are in points of balanced accuracy over real rows in the same batches with the same loss; all
else is of Phase I.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from finetune.sampling.head_tail import split_head_tail
from finetune.sampling.masks import specific_positions
from store.reader import FeatureStore

HEAD_RATIO, TAU_S = 0.8, 0.7  # the defaults
PAIRS = {"in halves": ("fsa", "no-aug"), "corrected": ("fsa+balanced-softmax", "balanced-softmax")}


def figures(path: str) -> dict[str, float]:
    """Figures of a store's training images: accuracies of Phase I in %, shares of positions in %."""
    store = FeatureStore(Path(path))
    train, (weight, bias) = store.read("train"), store.classifier
    counts = train.class_counts(len(store.class_names))
    is_tail = np.isin(train.label, split_head_tail(counts, HEAD_RATIO).tail)
    right = (train.pooled @ weight.T + bias).argmax(1) == train.label
    test = store.read("test")
    of_class = pd.Series((test.pooled @ weight.T + bias).argmax(1) == test.label).groupby(test.label).mean()
    specific = specific_positions(store.read_cam()[is_tail], TAU_S).count / np.prod(store.map_shape[1:3])
    tail = split_head_tail(counts, HEAD_RATIO).tail
    return {
        "tail, trained on": 100 * right[is_tail].mean(),
        "tail, test": 100 * of_class[tail].mean(),
        "specific positions": 100 * specific.mean(),
        "zeros in maps": 100 * float((store.feature_map(np.flatnonzero(is_tail)[::7]) == 0).mean()),
    }


def gains(contest: Path) -> dict[str, float]:
    """What fused samples add to real rows, on val and test: means over the stores of a contest."""
    table = pd.read_csv(contest / "standings.csv").set_index("entry")
    found = {}
    for name, (fused, real) in PAIRS.items():
        for split in ("val", "test"):
            score = table[f"{split}_balanced_accuracy_mean"]
            found[f"{name}, {split}"] = score[fused] - score[real]
    return found


def drawn(table: pd.DataFrame) -> Figure:
    """Gain of fused samples in halves by the share of class-specific positions."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for split, marker in (("val", "o"), ("test", "s")):
        axes.plot(table["specific positions"], table[f"in halves, {split}"], marker, label=split)
    for _, row in table.iterrows():
        place = row["specific positions"], row[["in halves, val", "in halves, test"]].max()
        axes.annotate(row["contest"], place, (0, 6), textcoords="offset points", ha="center", fontsize=8)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.margins(0.15, 0.2)
    axes.set_xlabel("class-specific positions of tail images, %")
    axes.set_ylabel("FSA − No Aug, balanced accuracy, points")
    axes.legend(fontsize="small")
    return figure


def main() -> None:
    rows = []
    for argument in sys.argv[2:]:
        contest, _, stores = argument.partition("=")
        of_stores = pd.DataFrame([figures(store) for store in stores.split(",")]).mean().to_dict()
        rows.append({"contest": Path(contest).name} | of_stores | gains(Path(contest)))
    table = pd.DataFrame(rows)
    print(table.round(1).to_string(index=False))
    drawn(table).savefig(sys.argv[1], dpi=150)


if __name__ == "__main__":
    main()
