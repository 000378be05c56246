"""Several runs read back and laid side by side: tables, CSV files and figures."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.accuracy import confusion_matrix, group_accuracies, per_class_frame
from analysis.figures import class_accuracy_figure, confusion_figure, learning_curve_figure
from analysis.shots import GROUPS
from analysis.tables import COLUMNS, PHASE_1, compare, name_configurations, without_nan
from extract.config import check_shot_rule
from finetune.comparable import refuse_same, refuse_unlike
from finetune.config import AnalyzeConfig
from finetune.options import named_options
from finetune.run import Run, RunError, read_run
from finetune.split import parts_of
from store.atomic import whole_file, write_json
from store.errors import refuse_undecodable

CONFIGURATION_OF_DATA = ("dataset", "imbalance_factor", "val_per_class")
CONFIGURATION_OF_NETWORK = ("arch", "width", "weights")
TABLES = ("summary", "runs", "per_class")
FIGURES = ("class_accuracy", "confusion", "learning_curve")
MARKER, FORMAT = "analysis.json", "tailcache-analysis"  # tell a folder of ours from others


@dataclass(frozen=True)
class Analysis:
    """What `analyze` found.

    Attributes:
        comparison: a row for Phase I and for each configuration, from `analysis.tables.compare`.
        runs: a row a run.
        per_class: a row a class: class_id, class_name, n_train, shot_group, and the mean accuracy of
            each configuration of Phase I and of Phase II.
        n_classes: number of classes in all, in each shot group, head and tail.
        files: what was written.
    """

    comparison: pd.DataFrame
    runs: pd.DataFrame
    per_class: pd.DataFrame
    n_classes: dict[str, int]
    files: list[Path]


def analyze(config: AnalyzeConfig) -> Analysis:
    """Compare runs; write three tables, three figures and analysis.json into `config.out`.

    Head and tail classes are the first run's, for all of them.

    Raises:
        UserError: a folder is no run, the runs are not about the same images, two of them are one, or the
            folder holds files of the same names that are not ours.
    """
    out = Path(config.out)
    check_shot_rule(config.shot_rule)
    refuse_undecodable(config.out, *config.runs)
    _refuse_foreign_files(out)
    paths = list(dict.fromkeys(Path(run).resolve() for run in config.runs))
    runs = [read_run(path) for path in paths]
    refuse_unlike(runs)
    names = name_configurations([_options(run) for run in runs])
    refuse_same(runs, names)
    phase1_names = name_configurations([{"method": PHASE_1} | _phase1_options(run) for run in runs])
    table = pd.DataFrame(
        [
            {"configuration": name, "phase1_configuration": phase1_name}
            | _run_row(run, config.shot_rule, runs[0].config["facts"])
            for run, name, phase1_name in zip(runs, names, phase1_names, strict=True)
        ]
    )
    per_class = _per_class(runs, table, config.shot_rule)
    n_classes = {group: int((per_class["shot_group"] == group).sum()) for group in GROUPS}
    n_classes |= {"overall": len(per_class)}
    n_classes |= {part: len(ids) for part, ids in parts_of(runs[0].config["facts"]).items()}
    comparison = compare(table)
    content = {"format": FORMAT, "comparison": comparison.to_dict("records"), "n_classes": n_classes}
    frames = dict(zip(TABLES, (comparison, table, per_class), strict=True))
    files = _write(out, content, frames, _figures(runs, table, per_class))
    return Analysis(comparison, table, per_class, n_classes, files)


def _refuse_foreign_files(out: Path) -> None:
    for name, what in (("checkpoint.pt", "a run"), ("zarr.json", "a store")):
        if (out / name).exists():
            raise RunError(f"{out}: is the folder of {what}; name another --out")
    if _is_analysis(out / MARKER):
        return
    for name in (MARKER, *(f"{table}.csv" for table in TABLES), *(f"{figure}.png" for figure in FIGURES)):
        if (out / name).exists():
            raise RunError(f"{out / name}: exists and was not written by `analyze`; name another --out")


def _is_analysis(path: Path) -> bool:
    try:
        return json.loads(path.read_text())["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(
    out: Path, content: dict[str, Any], frames: dict[str, pd.DataFrame], figures: dict[str, Figure]
) -> list[Path]:
    drawn = {f"{name}.png": _png(figure) for name, figure in figures.items()}
    files = {f"{name}.csv": frame.to_csv(index=False).encode() for name, frame in frames.items()} | drawn
    write_json(out / MARKER, without_nan(content))  # first, so that the others are known for ours
    for name, data in files.items():
        with whole_file(out / name) as unfinished:
            unfinished.write_bytes(data)
    return [*(out / name for name in files), out / MARKER]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _phase1_options(run: Run) -> dict[str, Any]:
    """The options that make the configuration of a run's Phase I: data, network, training."""
    made = run.config["provenance"]["store"]
    data = {name: made["dataset"][name] for name in CONFIGURATION_OF_DATA}
    network = {name: made["network"][name] for name in CONFIGURATION_OF_NETWORK}
    return data | network | {f"phase1_{name}": value for name, value in made["training"].items()}


def _options(run: Run) -> dict[str, Any]:
    """The options that make a run's configuration: those of all three phases."""
    own = named_options(run.config)
    if own.pop("select_on", None) == "test":
        own["method"] += " (chosen on test)"
    made = run.config["provenance"]["store"]
    extraction = {f"extract_{name}": made["config"][name] for name in ("dtype", "precision")}
    extraction["extract_views"] = made["config"].get("views", 1)  # earlier stores do not say
    for conversion in made.get("converted", []):  # the last says what the run read
        extraction["extract_dtype"] = conversion["dtype"]
    return own | _phase1_options(run) | extraction


def _frame(run: Run, column: str, rule: str) -> pd.DataFrame:
    """The per-class frame of one column of a run's predictions."""
    return per_class_frame(
        run.predictions["label"].to_numpy(),
        run.predictions[column].to_numpy(),
        run.per_class["class_name"].tolist(),
        run.per_class["n_train"].to_numpy(),
        rule,
    )


def _run_row(run: Run, rule: str, facts: dict[str, Any]) -> dict[str, Any]:
    row = {"run": str(run.path), "seed": run.config["seed"], "phase1": run.phase1_digest}
    for prefix, column in (("", "prediction"), ("phase1_", "phase1")):
        frame = _frame(run, column, rule)
        values = group_accuracies(frame, parts_of(facts))
        row |= {prefix + column: values[column] for column in COLUMNS}
    return row


def _per_class(runs: list[Run], table: pd.DataFrame, rule: str) -> pd.DataFrame:
    frame = _frame(runs[0], "phase1", rule)[["class_id", "class_name", "n_train", "shot_group"]]
    networks = table.drop_duplicates("phase1")
    for column, rows, by in (
        ("phase1", networks, "phase1_configuration"),
        ("prediction", table, "configuration"),
    ):
        for name, group in rows.groupby(by, sort=False):
            accuracies = [_frame(runs[i], column, rule)["accuracy"] for i in group.index]
            frame[name] = np.mean(accuracies, axis=0)
    return frame


def _figures(runs: list[Run], table: pd.DataFrame, per_class: pd.DataFrame) -> dict[str, Figure]:
    phase1_names = table["phase1_configuration"].unique().tolist()
    members = {name: group.index for name, group in table.groupby("configuration", sort=False)}
    curves = {name: [runs[i].metrics for i in index] for name, index in members.items()}
    shown, index = next(iter(members.items()))  # one matrix can be shown; the user names that run first
    order = per_class.sort_values("n_train", ascending=False, kind="stable")["class_id"].to_numpy()
    before, after = (
        np.mean([_confusion_percent(runs[i], column, order) for i in index], axis=0)
        for column in ("phase1", "prediction")
    )
    class_names = per_class["class_name"].iloc[order].tolist()
    figures = (
        class_accuracy_figure(per_class, phase1_names, list(members)),
        confusion_figure(before, after, class_names, shown),
        learning_curve_figure(curves),
    )
    return dict(zip(FIGURES, figures, strict=True))


def _confusion_percent(run: Run, column: str, order: np.ndarray) -> np.ndarray:
    label, prediction = (run.predictions[name].to_numpy() for name in ("label", column))
    counts = confusion_matrix(label, prediction, len(order))[np.ix_(order, order)]
    totals = counts.sum(axis=1, keepdims=True)
    return 100 * counts / np.where(totals > 0, totals, 1)
