"""What decides whether fused samples help: figures of each store beside what fused samples gain there.

Usage: python benchmarks/what_decides.py FIGURE.png CONTEST=STORE[,STORE]..., a folder of each contest and its
stores. Gains are in points of balanced accuracy over real rows in the same batches with the same loss; all
else is of Phase I. Its head recognises a sample if its class has the largest logit once those of the class
shares are taken off, as by logit adjustment at τ 1.
"""

import sys
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from finetune.config import FinetuneConfig
from finetune.heads.threads import Threads
from finetune.training.inputs import plan_inputs
from finetune.training.recognised import FACT, recognised_facts, without_shares
from finetune.training.trainer import LoadedStore
from store.reader import FeatureStore

CPU = torch.device("cpu")
PAIRS = {"in halves": ("fsa", "no-aug"), "corrected": ("fsa+balanced-softmax", "balanced-softmax")}
RECOGNISED = "fused, recognised"


def figures(path: str) -> dict[str, float]:
    """Figures of a store in %: training images and fused samples of the tail that Phase I's head recognises.

    Also its class-specific positions, and zeros in its maps.
    """
    store = FeatureStore(Path(path))
    config = FinetuneConfig(store=path, method="fsa", device="cpu").resolved(len(store.class_names))
    loaded = LoadedStore.open(store, config.shot_rule, CPU, Threads(1))
    inputs, pooled = plan_inputs(config, store, loaded.common), loaded.features.pooled
    tail_rows = inputs.tail_set
    right = without_shares(store, CPU).logits(pooled).argmax(dim=1) == loaded.features.label
    of_classes = pd.Series(right.numpy()).groupby(loaded.features.label.numpy()).mean()
    return {
        "tail, recognised": 100 * of_classes[inputs.head_tail.tail].mean(),
        RECOGNISED: recognised_facts(config, inputs, loaded)[FACT],
        "specific positions": 100 * inputs.specific.count[tail_rows].mean() / inputs.specific.order.shape[1],
        "zeros in maps": 100 * float((store.feature_map(tail_rows[::7]) == 0).mean()),
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
    """Gain of fused samples in halves by the share of them that is recognised."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for split, marker in (("val", "o"), ("test", "s")):
        axes.plot(table[RECOGNISED], table[f"in halves, {split}"], marker, label=split)
    gain = table[["in halves, val", "in halves, test"]].mean(axis=1)
    for name, x, y in zip(table["contest"], table[RECOGNISED], gain, strict=True):
        left = (x - table[RECOGNISED]).between(0, 12, inclusive="right")
        taken = (left & ((y - gain).abs() < 0.6)).any()
        place, align = ((8, 0), "left") if taken else ((-8, 0), "right")  # names would lie over neighbours
        clear = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # of the line at 0
        where = {"textcoords": "offset points", "ha": align, "va": "center", "bbox": clear}
        axes.annotate(name, (x, y), place, fontsize=8, **where)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.margins(0.25, 0.2)
    axes.set_xlabel("fused samples that Phase I's head recognises, %")
    axes.set_ylabel("FSA − No Aug, balanced accuracy, points")
    axes.legend(fontsize="small", loc="upper left")
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
