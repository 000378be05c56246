"""A run directory: what a fine-tuning run leaves behind, written whole and read back."""

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from analysis.accuracy import is_score, per_class_frame, summarise
from analysis.csv_files import read_csv, write_csv
from extract.checkpoint import Checkpoint, save_checkpoint
from extract.phase1 import load_origin
from finetune.config import FinetuneConfig
from finetune.methods.options import EARLIER
from finetune.run_folder import EVENTS, RunError, check_run_exists
from finetune.sampling.head_tail import parts_of
from store.errors import StoreError, UserError
from store.reader import FeatureStore
from store.storage.atomic import whole_folder, write_json

NESTED_KEYS = {  # of what made the store
    "checkpoint": {"sha256", "path", "relative_path"},
    "config": {"dtype", "precision"},
    "dataset": {"dataset", "imbalance_factor", "val_per_class"},
    "network": {"arch", "width", "weights"},
    "training": {"epochs", "lr"},
}
CONFIG_KEYS = {"seed", "facts", "provenance"}  # the least that a reader relies on
STORE_KEYS = {"checkpoint", "config", "dataset", "network", "training"}
COLUMNS = {
    "metrics": {"iteration", "loss"},
    "per_class": {"class_name", "n_train"},
    "predictions": {"sample_index", "label", "phase1", "prediction"},
}


class Head(NamedTuple):
    """The FC layer that fine-tuning ends in: weight (K, C) and bias (K,), float32, on the CPU."""

    weight: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder; None of a run that was not written.
        config: config.json: options, provenance, seed, versions.
        metrics: metrics.csv: iteration, loss and the accuracies at that moment.
        per_class: per_class.csv.
        predictions: predictions.csv, a row a test image: sample_index, label, phase1, prediction.
        summary: summary.json.
        head_made: the head, where this process made it; `head` has it in any case.
        stamp: tells the folder that was read from one that replaced it since.
    """

    path: Path | None
    config: dict[str, Any]
    metrics: pd.DataFrame
    per_class: pd.DataFrame
    predictions: pd.DataFrame
    summary: dict[str, Any]
    head_made: Head | None = field(default=None, repr=False)
    stamp: tuple[int, int] | None = field(default=None, repr=False)

    @cached_property
    def head(self) -> Head:
        """The FC layer, read from head.pt when it is first asked for.

        Raises:
            RunError: head.pt is missing or damaged, or of a run that replaced this one.
        """
        if self.head_made is not None:
            return self.head_made
        if self.stamp != _stamp(self.path):
            raise RunError(f"{self.path}: was replaced since it was read; read it again")
        return _read_head(self.path / "head.pt", len(self.per_class))

    @property
    def name(self) -> str:
        """What messages call it: its folder, or its method and seed."""
        return str(self.path or f"{self.config['method']}, seed {self.config['seed']}")

    @property
    def phase1_digest(self) -> str:
        """SHA-256 of Phase I's checkpoint: tells its networks apart."""
        return self.config["provenance"]["store"]["checkpoint"]["sha256"]


def write_run(run: Run, phase1: Checkpoint, tensorboard: bool) -> None:
    """Write a run's folder in one piece, replacing what was there.

    head.pt holds the FC layer alone, checkpoint.pt the whole network with it.
    """
    head = run.head._asdict()
    state = phase1.state | {f"classifier.{name}": value for name, value in head.items()}
    deployed = replace(phase1, state=state, optimizer=None, finetuned=True)
    with whole_folder(run.path) as folder:
        write_json(folder / "config.json", run.config)
        write_json(folder / "summary.json", run.summary)
        write_csv(run.metrics, folder / "metrics.csv")
        write_csv(run.per_class, folder / "per_class.csv")
        write_csv(run.predictions, folder / "predictions.csv")
        buffer = io.BytesIO()  # torch writes a file's own name into it; a buffer has none
        torch.save(head, buffer)
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
        RunError: no such folder, or not a finished run.
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
            f"{path}: not a finished fine-tuning run (it lacks {Path(error.filename).name}); "
            "expected a folder written by `finetune`"
        ) from error
    except (ValueError, TypeError, KeyError) as error:  # JSON's and CSV's errors are of the first kind
        raise RunError(f"{path}: a file of this run is damaged ({error}); run `finetune` again") from error
    return run


def _stamp(path: Path) -> tuple[int, int]:
    found = (path / "config.json").stat()
    return found.st_ino, found.st_mtime_ns


def _read_head(path: Path, n_classes: int) -> Head:
    try:
        head = Head(**torch.load(path, map_location="cpu", weights_only=True))
        if not (head.weight.ndim == 2 and len(head.weight) == len(head.bias) == n_classes):
            raise ValueError(f"expected a weight and a bias for each of {n_classes} classes")
    except Exception as error:  # bytes that are nothing of ours can fail anywhere in torch's unpickler
        raise RunError(f"{path}: not a head that can be read; run `finetune` again") from error
    return head


def _check(run: Run) -> None:
    """Raise ValueError, TypeError or KeyError where a file does not hold what readers rely on."""
    options = {field.name for field in fields(FinetuneConfig)}
    _check_complete("config.json", CONFIG_KEYS | options, run.config)
    _check_made(run.config["provenance"]["store"], "config.json")
    identity = run.config["provenance"].get("identity", {"digests": {}, "images": {}})
    if not all(isinstance(identity[name], dict) for name in ("digests", "images")):
        raise ValueError("config.json: identity holds no digests by split")
    n_classes = len(run.per_class)
    _check_numbers("per_class.csv", run.per_class["n_train"], least=0)
    for name in ("label", "phase1", "prediction"):
        _check_numbers("predictions.csv", run.predictions[name], least=0, most=n_classes - 1)
    _check_numbers("metrics.csv", run.metrics["iteration"], least=0)
    for name in filter(is_score, run.metrics):
        _check_numbers("metrics.csv", run.metrics[name], kinds="if")
    if not (run.metrics["iteration"].diff().dropna() > 0).all():
        raise ValueError("metrics.csv: iterations do not ascend")
    n_correct = int((run.predictions["label"] == run.predictions["prediction"]).sum())
    counted = {"n_test": len(run.predictions), "n_correct": n_correct}
    if counted != {name: run.summary[name] for name in counted}:
        raise ValueError(f"predictions.csv counts {counted}, summary.json otherwise")
    facts = run.config["facts"]
    if sorted(facts["head_classes"] + facts["tail_classes"]) != list(range(n_classes)):
        raise ValueError("config.json: head and tail classes are not all classes")


def _check_numbers(
    where: str, column: pd.Series, kinds: str = "i", least: float = -np.inf, most: float = np.inf
) -> None:
    """Raise ValueError unless every row holds a number of some kinds, within bounds, and there is a row."""
    if not (len(column) and column.dtype.kind in kinds and column.between(least, most).all()):
        raise ValueError(f"{where}: {column.name} is not a number from {least} to {most} in every row")


def _completed(run: Run) -> Run:
    """The same with what the summary of an earlier program's run lacks, from its predictions."""
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
    """Raise StoreError for a store that does not say what a run tells of it."""
    try:
        _check_made(store.provenance, "provenance")
    except (ValueError, TypeError) as error:
        raise StoreError(f"{store.path}: {error}; extract again") from error


def find_phase1(store: FeatureStore, ckpt: str | None) -> Checkpoint:
    """The checkpoint that a store was extracted with, proved by its digest, classes and FC layer.

    Looked for where the user says, else beside the store as it lay then, else where it lay.

    Raises:
        UserError: it is not there, or another one is, or the store does not say.
    """
    check_provenance(store)
    recorded = store.provenance["checkpoint"]
    folder = store.path.resolve().parent if isinstance(store.path, Path) else Path()
    beside = (folder / recorded["relative_path"]).resolve()
    candidates = [Path(ckpt)] if ckpt is not None else [beside, Path(recorded["path"])]
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise UserError(
            f"{candidates[-1]}: Phase I's checkpoint is not there; checkpoint.pt of the run is made from it, "
            "so say where it lies with --ckpt"
        )
    return load_origin(store, found)
