"""Two entries of a finished contest beside each other: the lag of the second, with its interval.

Usage: python benchmarks/contest_pair.py CONTEST STORE[,STORE]... A,B..., stores in the order of the contest.
Intervals of standings.csv are of the lag behind the first; these are of pairs that it does not name.
"""

import json
import sys
from pathlib import Path

import pandas as pd
import torch
from rich.progress import Progress

from finetune.contest.choosing import choosing_on
from finetune.contest.config import ContestConfig
from finetune.contest.entries import ENTRIES
from finetune.contest.folder import KeptHeads
from finetune.contest.runner import Runner
from finetune.contest.standings import standings
from finetune.heads.threads import Threads
from finetune.training.trainer import LoadedStore
from store.reader import FeatureStore

SHOWN = ("balanced_accuracy_mean", "behind", "behind_low", "behind_high")


def main() -> None:
    contest, stores = Path(sys.argv[1]), tuple(sys.argv[2].split(","))
    recorded = json.loads((contest / "contest.json").read_text())["options"]
    table = pd.read_csv(contest / "standings.csv").set_index("entry")
    config = ContestConfig(stores, str(contest), **recorded)
    threads, kept = Threads(1), []
    for i, path in enumerate(stores):
        loaded = LoadedStore.open(FeatureStore(Path(path)), config.shot_rule, torch.device("cpu"), threads)
        chosen_on = choosing_on(config, loaded, Progress(disable=True))
        kept.append(KeptHeads(contest, i, loaded, chosen_on, config.head_ratio))
    n_classes = [len(FeatureStore(Path(path)).class_names) for path in stores]
    for pair in sys.argv[3:]:
        finalists = []
        for entry in pair.split(","):
            runner = Runner(entry, ENTRIES[entry], config, n_classes)
            runner.left = [table.loc[entry, "chosen"]]
            finalists.append(runner.finalist())
        found = standings(finalists, kept, config.select_on, config.rank_by).set_index("entry")
        for split in (config.select_on, "test"):
            print(found[[f"{split}_{name}" for name in SHOWN]].round(2).to_string(), end="\n\n")


if __name__ == "__main__":
    main()
