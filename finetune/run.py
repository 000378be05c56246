"""A run and its folder: written completely or not at all, read back and checked."""

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis.accuracy import is_score, per_class_frame, summarise
from analysis.csv_files import read_csv, write_csv
from extract.checkpoints.checkpoint import Checkpoint, save_checkpoint
from extract.checkpoints.phase1 import load_phase1
from extract.heads.in_network import with_head
from extract.heads.kinds import Layer, layer_of, saved_parts
from finetune.config import FinetuneConfig
from finetune.methods.options import EARLIER
from finetune.run_folder import EVENTS, RunError, check_run_exists
from finetune.sampling.head_tail import parts_of
from store.errors import StoreError, UserError
from store.reader import FeatureStore
from store.storage.atomic import whole_folder, write_json

# Keys and columns that readers of a run rely on.
CONFIG_KEYS = {"seed", "facts", "provenance"}
STORE_KEYS = {"checkpoint", "config", "dataset", "network", "training"}  # of the store's provenance
NESTED_KEYS = {
    "checkpoint": {"sha256", "path", "relative_path"},
    "config": {"dtype", "precision"},
    "dataset": {"dataset", "imbalance_factor", "val_per_class"},
    "network": {"arch", "width", "weights"},
    "training": {"epochs", "lr"},
}
COLUMNS = {
    "metrics": {"iteration", "loss"},
    "per_class": {"class_name", "n_train"},
    "predictions": {"sample_index", "label", "phase1", "prediction"},
}


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder; None for a run that was not written.
        config: config.json: options, provenance, seed, versions.
        metrics: metrics.csv: iteration, loss, and the accuracies at that iteration.
        per_class: per_class.csv.
        predictions: predictions.csv, one row per test image: sample_index, label, phase1, prediction.
        summary: summary.json.
        head_made: the head, if this process made it; use `head`, which also reads it from the folder.
        stamp: inode and time of config.json when it was read, to notice that the folder was replaced.
    """

    path: Path | None
    config: dict[str, Any]
    metrics: pd.DataFrame
    per_class: pd.DataFrame
    predictions: pd.DataFrame
    summary: dict[str, Any]
    head_made: Layer | None = field(default=None, repr=False)
    stamp: tuple[int, int] | None = field(default=None, repr=False)

    @cached_property
    def head(self) -> Layer:
        """The head, float32 tensors on the CPU: weight (K, C) and bias (K,), or those of another kind.

        It computes `logits` of pooled features. Read from head.pt on first use.

        Raises:
            RunError: head.pt is missing or damaged, or another run has replaced this one.
        """
        if self.head_made is not None:
            return self.head_made
        if self.stamp != _stamp(self.path):
            raise RunError(f"{self.path}: was replaced since it was read; read it again")
        return _read_head(self.path / "head.pt", len(self.per_class))

    @property
    def name(self) -> str:
        """Name of the run in messages: its folder, or its method and seed."""
        return str(self.path or f"{self.config['method']}, seed {self.config['seed']}")

    @property
    def phase1_digest(self) -> str:
        """SHA-256 of Phase I's checkpoint, which identifies its network."""
        return self.config["provenance"]["store"]["checkpoint"]["sha256"]


def write_run(run: Run, phase1: Checkpoint, tensorboard: bool) -> None:
    """Write a run's folder in one piece, replacing what was there.

    head.pt holds only the head, checkpoint.pt the whole network with it.
    """
    state = with_head(phase1.state, run.head)
    deployed = replace(phase1, state=state, optimizer=None, finetuned=True, turned=None)
    with whole_folder(run.path) as folder:
        write_json(folder / "config.json", run.config)
        write_json(folder / "summary.json", run.summary)
        write_csv(run.metrics, folder / "metrics.csv")
        write_csv(run.per_class, folder / "per_class.csv")
        write_csv(run.predictions, folder / "predictions.csv")
        buffer = io.BytesIO()  # a buffer, because torch would write the name of a file into the bytes
        torch.save(saved_parts(run.head), buffer)
        (folder / "head.pt").write_bytes(buffer.getvalue())
        save_checkpoint(deployed, folder / "checkpoint.pt")
        if tensorboard:
            _write_events(run.metrics, folder / EVENTS)


def _write_events(metrics: pd.DataFrame, folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for row in metrics.to_dict("records"):
            for name, value in row.items():
                if name != "iteration" and value == value:
                    writer.add_scalar(name, value, row["iteration"])


def read_run(path: Path) -> Run:
    """Read a run's folder.

    Raises:
        RunError: the folder does not exist or is not a finished run.
    """
    check_run_exists(path)
    try:
        stamp = _stamp(path)
        config, summary = (json.loads((path / f"{n}.json").read_text()) for n in ("config", "summary"))
        frames = [_read_frame(path / f"{name}.csv", columns) for name, columns in COLUMNS.items()]
        run = Run(path, EARLIER | config, *frames, summary, stamp=stamp)
        _check(run)
        run = _completed(run)
    except FileNotFoundError as error:
        raise RunError(
            f"{path}: not a finished fine-tuning run ({Path(error.filename).name} is missing); "
            "expected a folder written by `finetune`"
        ) from error
    except (ValueError, TypeError, KeyError) as error:  # errors in JSON and CSV are ValueErrors
        raise RunError(f"{path}: a file of this run is damaged ({error}); run `finetune` again") from error
    return run


def _stamp(path: Path) -> tuple[int, int]:
    found = (path / "config.json").stat()
    return found.st_ino, found.st_mtime_ns


def _read_head(path: Path, n_classes: int) -> Layer:
    try:
        head = layer_of(torch.load(path, map_location="cpu", weights_only=True))
        if len(head.weight) != n_classes:
            raise ValueError(f"expected a weight for each of {n_classes} classes")
    except Exception as error:  # foreign bytes can fail anywhere in torch's unpickler
        raise RunError(f"{path}: cannot be read as a head; run `finetune` again") from error
    return head


def _check(run: Run) -> None:
    """Raise ValueError, TypeError or KeyError if a file lacks what readers rely on."""
    options = {field.name for field in fields(FinetuneConfig)}
    _check_complete("config.json", CONFIG_KEYS | options, run.config)
    _check_made(run.config["provenance"]["store"], "config.json")
    identity = run.config["provenance"].get("identity", {"digests": {}, "images": {}})
    if not all(isinstance(identity[name], dict) for name in ("digests", "images")):
        raise ValueError("config.json: identity lacks digests by split")
    n_classes = len(run.per_class)
    _check_numbers("per_class.csv", run.per_class["n_train"], least=0)
    for name in ("label", "phase1", "prediction"):
        _check_numbers("predictions.csv", run.predictions[name], least=0, most=n_classes - 1)
    _check_numbers("metrics.csv", run.metrics["iteration"], least=0)
    for name in filter(is_score, run.metrics):
        _check_numbers("metrics.csv", run.metrics[name], kinds="if")
    if not (run.metrics["iteration"].diff().dropna() > 0).all():
        raise ValueError("metrics.csv: iterations are not ascending")
    n_correct = int((run.predictions["label"] == run.predictions["prediction"]).sum())
    counted = {"n_test": len(run.predictions), "n_correct": n_correct}
    if counted != {name: run.summary[name] for name in counted}:
        raise ValueError(f"predictions.csv has {counted}, summary.json differs")
    facts = run.config["facts"]
    if sorted(facts["head_classes"] + facts["tail_classes"]) != list(range(n_classes)):
        raise ValueError("config.json: head and tail classes together are not all classes")


def _check_numbers(
    where: str, column: pd.Series, kinds: str = "i", least: float = -np.inf, most: float = np.inf
) -> None:
    """Raise ValueError unless there are rows and each holds a number of these dtype kinds, within bounds."""
    if not (len(column) and column.dtype.kind in kinds and column.between(least, most).all()):
        raise ValueError(f"{where}: {column.name} is not a number from {least} to {most} in every row")


def _completed(run: Run) -> Run:
    """A copy whose summary has what an older version left out, computed from the predictions."""
    if "balanced_accuracy" in run.summary:
        return run
    label, class_names = run.predictions["label"].to_numpy(), run.per_class["class_name"].tolist()
    rule, n_train = run.summary["shot_rule"], run.per_class["n_train"].to_numpy()

    def measured(column: str) -> dict[str, Any]:
        prediction = run.predictions[column].to_numpy()
        frame = per_class_frame(label, prediction, class_names, n_train, rule)
        return summarise(frame, rule, parts_of(run.config["facts"]))

    return replace(run, summary=run.summary | measured("prediction") | {"phase1": measured("phase1")})


def _check_made(provenance: dict[str, Any], where: str) -> None:
    _check_complete(where, STORE_KEYS, provenance)
    for part, keys in NESTED_KEYS.items():
        _check_complete(f"{where}, {part}", keys, provenance[part])
    for conversion in provenance.get("converted", []):
        _check_complete(f"{where}, converted", {"dtype"}, conversion)


def _read_frame(path: Path, columns: set[str]) -> pd.DataFrame:
    frame = read_csv(path)
    _check_complete(path.name, columns, frame)
    return frame


def _check_complete(name: str, expected: set[str], found: Iterable[str]) -> None:
    missing = expected - set(found)
    if missing:
        raise ValueError(f"{name} lacks {', '.join(sorted(missing))}")


def check_provenance(store: FeatureStore) -> None:
    """Raise StoreError if a store's provenance lacks what a run records."""
    try:
        _check_made(store.provenance, "provenance")
    except (ValueError, TypeError) as error:
        raise StoreError(f"{store.path}: {error}; extract again") from error


def find_phase1(
    store: FeatureStore, ckpt: str | None, why: str = "the run's checkpoint.pt is made from it"
) -> Checkpoint:
    """The checkpoint that a store was extracted with, verified by its digest, classes and FC layer.

    Searched for at `ckpt` if given, else at its recorded path relative to the store, else at its recorded
    absolute path. `why` it is needed is for the message.

    Raises:
        UserError: it is missing, another checkpoint is there, or the store does not record it.
    """
    check_provenance(store)
    recorded = store.provenance["checkpoint"]
    folder = store.path.resolve().parent if isinstance(store.path, Path) else Path()
    beside = (folder / recorded["relative_path"]).resolve()
    candidates = [Path(ckpt)] if ckpt is not None else [beside, Path(recorded["path"])]
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise UserError(
            f"{candidates[-1]}: Phase I's checkpoint is not there, and {why}; say where it is with --ckpt"
        )
    return load_phase1(store, found)
