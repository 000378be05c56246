"""Conversions of made stores: finished, or killed in between."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
from dying import die_at_commit
from faults import end_if_hung
from made_store import BATCH, CLASSES, contents, made_layouts, made_plan, made_rows, write_made
from rich.progress import Progress

from store.config import ConvertConfig
from store.convert import convert
from store.reader import FeatureStore
from store.spec import StoreSpec

QUIET = Progress(disable=True)
OTHER = {".zarr": ".h5", ".h5": ".zarr"}
FINER = 1 + 2.0**-13  # turns float16 into float32, and leaves CAMs unchanged


def fine_rows() -> dict[str, np.ndarray]:
    """Made rows whose maps float16 cannot hold."""
    rows = made_rows()
    rows["train/feature_map"] = rows["train/feature_map"].astype(np.float32) * np.float32(FINER)
    rows["train/pooled"] = rows["train/feature_map"].mean((1, 2))
    return rows


FINE = fine_rows()


def extracted(path: str, dtype: str = "float16", codec: str = "none", rows=FINE) -> Path:
    """A store as an extraction in batches leaves it."""
    plan = made_plan(dtype=dtype)
    made = plan.provenance | {"config": {"batch_size": BATCH}}
    layouts = made_layouts(dtype=dtype, codec=codec)
    write_made(Path(path), replace(plan, layouts=layouts, provenance=made), rows)
    return Path(path)


def converted(path: Path, target: str, **options: object) -> Path:
    """Convert, without a progress bar."""
    convert(ConvertConfig(str(path), target, **options), QUIET)
    return Path(target)


def twin(path: Path, codec: str = "none", rows=FINE) -> dict[str, bytes]:
    """The files of an extraction that is given the provenance of another store."""
    store = FeatureStore(path)
    layouts = made_layouts(dtype=store.map_dtype, codec=codec)
    made = StoreSpec(layouts, store.map_dtype, CLASSES, store.provenance, store.provenance["identity"])
    other = path.with_name(f"twin{path.suffix}")
    write_made(other, made, rows)
    return contents(other)


def kill(path: Path, target: str, n_commits: int, **options: object) -> None:
    """Convert in a forked process that is killed after this many commits."""
    child = os.fork()
    if child == 0:
        end_if_hung()
        try:
            die_at_commit(n_commits)
            converted(path, target, **options)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
