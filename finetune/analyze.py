"""Several runs read back and laid side by side: tables, CSV files and figures."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.accuracy import confusion_matrix, group_accuracies, per_class_frame
from analysis.figures import class_accuracy_figure, confusion_figure, learning_curve_figure
from analysis.shots import GROUPS
from analysis.tables import COLUMNS, PHASE_1, class_mean, compare, name_configurations
from finetune.config import AnalyzeConfig, FinetuneConfig
from finetune.run import Run, RunError, read_run
from store.atomic import whole_file, write_text

CONFIGURATION_OF_DATA = ("dataset", "imbalance_factor", "val_per_class")
CONFIGURATION_OF_NETWORK = ("arch", "width", "weights")


@dataclass(frozen=True)
class Analysis:
    """What `analyze` found.

    Attributes:
        comparison: a row for Phase I and for each configuration, from `analysis.tables.compare`.
        runs: a row a run.
        per_class: a row a class: class_id, class_name, n_train, shot_group, and the mean accuracy of
            Phase I and of each configuration.
        n_classes: number of classes in each column of COLUMNS.
        files: what was written.
    """

    comparison: pd.DataFrame
    runs: pd.DataFrame
    per_class: pd.DataFrame
    n_classes: dict[str, int]
    files: list[Path]


def analyze(config: AnalyzeConfig) -> Analysis:
    """Compare runs and write summary.csv, runs.csv, per_class.csv and three figures into `config.out`.

    Raises:
        UserError: a folder is no run, or the runs are not about the same classes.
    """
    out = Path(config.out)
    if (out / "checkpoint.pt").exists():
        raise RunError(f"{out}: is the folder of a run, whose files would be replaced; name another --out")
    paths = list(dict.fromkeys(Path(run).resolve() for run in config.runs))
    runs = [read_run(path) for path in paths]
    _refuse_unlike(runs)
    names = name_configurations([_options(run) for run in runs])
    table = pd.DataFrame(
        [_run_row(run, name, config.shot_rule) for run, name in zip(runs, names, strict=True)]
    )
    per_class = _per_class(runs, names, config.shot_rule)
    n_classes = {group: int((per_class["shot_group"] == group).sum()) for group in GROUPS}
    n_classes |= {"overall": len(per_class)}
    n_classes |= {part: len(runs[0].config["facts"][f"{part}_classes"]) for part in ("head", "tail")}
    comparison = compare(table)
    files = []
    for name, frame in {"summary": comparison, "runs": table, "per_class": per_class}.items():
        write_text(out / f"{name}.csv", frame.to_csv(index=False))
        files.append(out / f"{name}.csv")
    for name, figure in _figures(runs, names, per_class).items():
        with whole_file(out / f"{name}.png") as unfinished:
            figure.savefig(unfinished, format="png", dpi=150)
        files.append(out / f"{name}.png")
    return Analysis(comparison, table, per_class, n_classes, files)


def _options(run: Run) -> dict[str, Any]:
    """The options that make a run's configuration: Phase II's, the network's and the data set's."""
    own = {field.name: run.config[field.name] for field in fields(FinetuneConfig)}
    made = run.config["provenance"]["store"]
    data = {name: made["dataset"][name] for name in CONFIGURATION_OF_DATA}
    return own | data | {name: made["network"][name] for name in CONFIGURATION_OF_NETWORK}


def _refuse_unlike(runs: list[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        same = run.per_class["class_name"].tolist() == first.per_class["class_name"].tolist()
        if not same or len(run.predictions) != len(first.predictions):
            raise RunError(
                f"{run.path}: is about other classes or test images than {first.path}; "
                "analyze the runs of one data set at a time"
            )


def _frame(run: Run, column: str, rule: str) -> pd.DataFrame:
    """The per-class frame of one column of a run's predictions."""
    return per_class_frame(
        run.predictions["label"].to_numpy(),
        run.predictions[column].to_numpy(),
        run.per_class["class_name"].tolist(),
        run.per_class["n_train"].to_numpy(),
        rule,
    )


def _run_row(run: Run, name: str, rule: str) -> dict[str, Any]:
    row = {
        "run": str(run.path),
        "configuration": name,
        "seed": run.config["seed"],
        "phase1": run.config["provenance"]["store"]["checkpoint"]["sha256"],
    }
    facts = run.config["facts"]
    for prefix, column in (("", "prediction"), ("phase1_", "phase1")):
        frame = _frame(run, column, rule)
        values = group_accuracies(frame)
        values |= {part: class_mean(frame, facts[f"{part}_classes"]) for part in ("head", "tail")}
        row |= {prefix + column: values[column] for column in COLUMNS}
    return row


def _per_class(runs: list[Run], names: list[str], rule: str) -> pd.DataFrame:
    frame = _frame(runs[0], "phase1", rule)[["class_id", "class_name", "n_train", "shot_group"]]
    networks = {run.config["provenance"]["store"]["checkpoint"]["sha256"]: run for run in runs}
    frame[PHASE_1] = np.mean([_frame(run, "phase1", rule)["accuracy"] for run in networks.values()], axis=0)
    for name in dict.fromkeys(names):
        of_name = [run for run, its in zip(runs, names, strict=True) if its == name]
        frame[name] = np.mean([_frame(run, "prediction", rule)["accuracy"] for run in of_name], axis=0)
    return frame


def _figures(runs: list[Run], names: list[str], per_class: pd.DataFrame) -> dict[str, Figure]:
    configurations = list(dict.fromkeys(names))
    curves = {c: [run.metrics for run, n in zip(runs, names, strict=True) if n == c] for c in configurations}
    shown = configurations[0]  # one confusion matrix can be shown; the user names that run first
    of_shown = [run for run, name in zip(runs, names, strict=True) if name == shown]
    order = per_class.sort_values("n_train", ascending=False, kind="stable")["class_id"].to_numpy()
    before, after = (
        np.mean([_confusion_percent(run, column, order) for run in of_shown], axis=0)
        for column in ("phase1", "prediction")
    )
    class_names = per_class["class_name"].iloc[order].tolist()
    return {
        "class_accuracy": class_accuracy_figure(per_class, configurations),
        "confusion": confusion_figure(before, after, class_names, shown),
        "learning_curve": learning_curve_figure(curves),
    }


def _confusion_percent(run: Run, column: str, order: np.ndarray) -> np.ndarray:
    label, prediction = (run.predictions[name].to_numpy() for name in ("label", column))
    counts = confusion_matrix(label, prediction, len(order))[np.ix_(order, order)]
    totals = counts.sum(axis=1, keepdims=True)
    return 100 * counts / np.where(totals > 0, totals, 1)
