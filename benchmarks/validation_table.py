"""Mean validation accuracy of every configuration among fine-tuning runs, best first.

Usage: python benchmarks/validation_table.py RUN...
"""

import json
import sys
from pathlib import Path

import pandas as pd


def main() -> None:
    rows = []
    for run in map(Path, sys.argv[1:]):
        config, summary = (json.loads((run / f"{name}.json").read_text()) for name in ("config", "summary"))
        options = {name: config[name] for name in ("method", "tau_s", "tau_g", "tail_draw")}
        rows.append(
            options | {"val": summary["val"]["overall"], "phase1": summary["val"]["phase1"]["overall"]}
        )
    table = pd.DataFrame(rows).groupby(["method", "tau_s", "tau_g", "tail_draw"])
    means = table.agg(
        val=("val", "mean"), std=("val", "std"), runs=("val", "size"), phase1=("phase1", "mean")
    )
    print(means.sort_values("val", ascending=False).round(2).to_string())


if __name__ == "__main__":
    main()
