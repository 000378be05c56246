"""The tables of "Recipes of Phase I" in docs/results.md.

Usage: python benchmarks/phase1_table.py RUNS, with a folder for each training that benchmarks/phase1.sh made.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.options import PLACES, WAYS
from analysis.tables import format_cell

SCORES = ("val_balanced_accuracy", "test_balanced_accuracy", "test_many", "test_medium", "test_few")
ACCURACIES = ("overall", "many", "medium", "few")  # of Phase I alone, on test images


def options(config: dict[str, Any]) -> str:
    """What trainings have in common if they differ by their seeds alone: no place, no way of computing."""
    dataset = {name: value for name, value in config["dataset"].items() if name != "subset_seed"}
    same = {name: value for name, value in config.items() if name not in {"seed", "workers"} | PLACES | WAYS}
    return json.dumps(same | {"dataset": dataset}, sort_keys=True)


def chosen_head(folder: Path) -> dict[str, Any]:
    """The configuration that val chose from all sweeps of a training; `method` is the name of its sweep."""
    heads = [
        pd.read_csv(path).iloc[0].to_dict() | {"method": path.parent.name}
        for path in sorted(folder.glob("*/ranking.csv"))
    ]
    return max(heads, key=lambda row: row["val_balanced_accuracy_mean"])


def figures(folder: Path) -> dict[str, object]:
    """Accuracies in % of one training: alone, and with the head of all sweeps that val chose."""
    config = json.loads((folder / "phase1" / "config.json").read_text())
    alone = json.loads((folder / "phase1.json").read_text())
    best = chosen_head(folder)
    epochs = pd.read_csv(folder / "phase1" / "metrics.csv")
    return (
        {"name": folder.name, "recipe": config["recipe"], "epochs": config["epochs"]}
        | {"imbalance": config["dataset"]["imbalance_factor"]}
        | {
            "seed": config["seed"],
            "subset seed": config["dataset"]["subset_seed"],
            "s an epoch": epochs["seconds"].median(),
        }
        | {"Phase I val": epochs["val_balanced_accuracy"].iloc[-1]}
        | {f"Phase I {name}": alone[name] for name in ACCURACIES}
        | {name: best[f"{name}_mean"] for name in SCORES}
        | {"head": best["method"], "chosen": best["configuration"], "options": options(config)}
    )


def averaged(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per configuration: mean ± std over its trainings, which differ by their seeds alone."""
    table = []
    for _, alike in rows.groupby("options", sort=False):
        cells = {name: alike[name].iloc[0] for name in ("recipe", "epochs", "imbalance")} | {
            "trainings": len(alike)
        }
        cells |= {f"{name}s": ", ".join(map(str, alike[name].unique())) for name in ("seed", "subset seed")}
        for name in ["Phase I val", *(f"Phase I {name}" for name in ACCURACIES), *SCORES]:
            values = alike[name].astype(float)
            cells[name] = format_cell(values.mean(), values.std(ddof=1))
        table.append(cells | {"head": ", ".join(alike["head"].unique())})
    return pd.DataFrame(table)


def main() -> None:
    folders = [path.parent for path in sorted(Path(sys.argv[1]).glob("*/phase1.json"))]
    rows = pd.DataFrame([figures(folder) for folder in folders])
    print(rows.drop(columns="options").to_string(index=False, float_format="%.2f"))
    of_protocol = rows["subset seed"] == 0
    seeds = averaged(rows[of_protocol])
    print(f"\nseeds of Phase I:\n{seeds.to_string(index=False)}")
    like = (rows["recipe"] == "short") & (rows["imbalance"] == 100) & (rows["seed"] == 0)
    if like.any():
        subsets = averaged(rows[like])
        print(f"\nsubset seeds:\n{subsets.to_string(index=False)}")


if __name__ == "__main__":
    main()
