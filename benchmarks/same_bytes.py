"""Whether two commits write the same bytes, which rearranging code must not change.

Usage: python benchmarks/same_bytes.py BEFORE [AFTER]

Each commit (AFTER is the working tree by default) is checked out separately and runs the same commands on
synthetic images: trainings, stores in both containers and every dtype, a dozen configurations of Phase II, a
sweep, predictions and tables. Then every array, tensor, table and line is compared, except times and digests
of them. Exit code 1 if any differ. About two minutes per commit on two cores.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from difflib import unified_diff
from io import StringIO
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401, by which h5py reads compressed maps
import numpy as np
import pandas as pd
import torch
import zarr
from PIL import Image

ROOT = Path(__file__).parent.parent
COUNTS = (32, 20, 12, 6, 4)
SMALL = ("--arch", "resnet20", "--width", "4", "--epochs", "2", "--batch-size", "16", "--device", "cpu")
SHORT = ("--iterations", "40", "--device", "cpu", "--tail-samples", "4", "--head-ratio", "0.7")
HEADS: dict[str, tuple[str, ...]] = {  # the configurations of Phase II
    "fsa": ("--method", "fsa"),
    "fsa-keep": ("--method", "fsa", "--keep", "best", "--eval-every", "10"),
    "fsa-tau": (
        "--method",
        "fsa",
        "--tau-s",
        "0.6",
        "--tau-g",
        "0.4",
        "--tail-draw",
        "classes",
        "--seed",
        "3",
    ),
    "fsa-streamed": ("--method", "fsa", "--residency", "stream"),
    "fsa-balanced": ("--method", "fsa", "--loss", "balanced-softmax", "--init", "fresh"),
    "no-aug": ("--method", "no-aug"),
    "plain": ("--method", "plain"),
    "crt": ("--method", "crt"),
    "lws": ("--method", "lws"),
    "tau-norm": ("--method", "tau-norm"),
    "ncm": ("--method", "ncm"),
    "logit-adjustment": ("--method", "logit-adjustment"),
    "focal": ("--method", "focal"),
    "weight-balancing": ("--method", "weight-balancing"),
}
# Keys, columns and arrays that depend on the time, the commit or free memory.
CLOCK = re.compile(r"seconds|^(begun|finished|created|commit|why)$|checksum/(finished|metadata)$")
DIGEST = (
    "sha256",
    "network",
    "checkpoint",
    "source",
    "phase1",
)  # files that contain times, unless they have keys
SAID = re.compile(r"\d+\.\d s\b|\d{4}-\d\d-\d\dT\S+|commit [0-9a-f]+( with changes)?")


def ways() -> Iterator[tuple[str, ...]]:
    """The commands, in order; they run in the folder with `images`."""
    data = ("--root", "images", "--val-per-class", "1")
    yield ("train", *data, *SMALL, "--no-flip", "--out", "phase1")
    yield ("train", "--imbalance-factor", "20", *SMALL, "--epochs", "1", "--out", "digits")
    yield ("evaluate", "--ckpt", "phase1/checkpoint.pt", "--device", "cpu", "--json")
    ckpt = ("--ckpt", "phase1/checkpoint.pt", "--device", "cpu")
    yield ("extract", *ckpt, "--store", "feats.zarr")
    yield ("extract", *ckpt, "--store", "feats.h5")
    yield ("extract", *ckpt, "--store", "views.zarr", "--views", "2", "--codec", "zstd")
    for dtype in ("float32", "bfloat16", "int8", "float8_e4m3"):
        yield ("extract", *ckpt, "--store", f"{dtype}.zarr", "--dtype", dtype)
    yield ("store", "convert", "float32.zarr", "converted.h5", "--dtype", "float16", "--codec", "lz4")
    yield ("store", "verify", "converted.h5", "--json")
    yield ("store", "info", "views.zarr")
    for name, options in HEADS.items():
        yield ("finetune", "--store", "feats.zarr", *SHORT, *options, "--out", f"runs/{name}")
    yield ("finetune", "--store", "views.zarr", "--method", "fsa", *SHORT, "--out", "runs/views")
    yield ("finetune", "--store", "int8.zarr", "--method", "fsa", *SHORT, "--out", "runs/int8")
    grid = ("--grid", "method=fsa,crt,lws,tau-norm", "--grid", "lr=0.001,0.01", "--seeds", "2", "--heads")
    yield ("sweep", "--store", "feats.zarr", *SHORT, *grid, "--select-on", "val", "--out", "sweep")
    others = [name for name in HEADS if name != "fsa-streamed"]  # the same run as fsa, so it would be refused
    yield ("analyze", *(f"runs/{name}" for name in others), "--out", "report")
    yield ("analyze", "sweep", "--out", "report-sweep")
    yield ("evaluate", "--ckpt", "runs/fsa/checkpoint.pt", "--device", "cpu")


def make_images(folder: Path) -> None:
    """Write a long-tailed folder of noisy patches, five classes of 12×12 pixels."""
    generator = np.random.default_rng(0)
    patterns = generator.integers(0, 256, (len(COUNTS), 12, 12, 3))
    for split, counts in {"train": COUNTS, "test": (6,) * len(COUNTS)}.items():
        for k, count in enumerate(counts):
            place = folder / split / f"class {k}"
            place.mkdir(parents=True)
            for i in range(count):
                noisy = patterns[k] // 2 + generator.integers(0, 128, (12, 12, 3))
                Image.fromarray(noisy.astype(np.uint8)).save(place / f"{i:03}.png")


def make_all() -> None:
    """Run all commands here, with the program on `PYTHONPATH`; their output is kept."""
    from cli import main

    said = {}
    for number, way in enumerate(ways()):
        print(f"  {' '.join(way)[:100]}", file=sys.stderr, flush=True)
        out, code = StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                main(list(way))
            except SystemExit as end:
                code = end.code
        said[f"{number:02} {' '.join(way)}"] = [code, out.getvalue()]
    Path("said.json").write_text(json.dumps(said, indent=1))


def contents(folder: Path) -> dict[str, str]:
    """Everything to compare, by name: texts, and digests of arrays."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or name.startswith("images/") or ".zarr/" in name:
            continue
        if path.name == "said.json":
            said = json.loads(path.read_text())
            found |= {f"says: {way}": SAID.sub("…", "\n".join(map(str, what))) for way, what in said.items()}
        elif path.suffix == ".json":
            found[name] = json.dumps(without_clocks(json.loads(path.read_text())), indent=1)
        elif path.suffix in (".csv", ".parquet"):
            frame = pd.read_csv(path, dtype=str) if path.suffix == ".csv" else pd.read_parquet(path)
            found[name] = frame[[c for c in frame if not _is_clock(c, "")]].to_csv(index=False)
        elif path.suffix == ".pt":
            held = torch.load(path, weights_only=True, map_location="cpu")
            found |= {f"{name}: {key}": value for key, value in _of_tensors(held)}
        elif path.suffix == ".h5":
            with h5py.File(path) as file:
                found |= _of_store(name, dict(file.attrs), _datasets(file))
        elif path.suffix not in (".png", ".lock") and path.name != "lock":
            found[name] = digest(path.read_bytes())
    for path in sorted(folder.glob("*.zarr")):
        root = zarr.open_group(path, mode="r")
        arrays = {name: array[...] for name, array in root.members(max_depth=None) if hasattr(array, "shape")}
        found |= _of_store(path.name, dict(root.attrs), arrays)
    return found


def digest(content: Any) -> str:
    """A short digest of bytes, a text, or anything that can be printed."""
    raw = content if isinstance(content, bytes) else str(content).encode()
    return hashlib.sha256(raw).hexdigest()[:16]


def without_clocks(content: Any) -> Any:
    """JSON without times and digests of them."""
    if isinstance(content, dict):
        return {k: without_clocks(v) for k, v in content.items() if not _is_clock(k, v)}
    return [without_clocks(item) for item in content] if isinstance(content, list) else content


def _is_clock(key: str, value: Any) -> bool:
    return bool(CLOCK.search(key)) or (key in DIGEST and isinstance(value, str))


def _of_tensors(held: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(held, torch.Tensor):
        numbers = held.contiguous().reshape(-1).view(torch.uint8).numpy()
        yield key, digest(numbers.tobytes() + f"{held.dtype} {tuple(held.shape)}".encode())
    elif isinstance(held, dict):
        for name, value in held.items():
            if not _is_clock(str(name), value):
                yield from _of_tensors(value, f"{key}/{name}")
    elif isinstance(held, list):
        for i, value in enumerate(held):
            yield from _of_tensors(value, f"{key}/{i}")
    else:
        yield key, digest(repr(held))


def _datasets(file: h5py.File) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    file.visititems(lambda name, item: arrays.update({name: item[()]}) if hasattr(item, "shape") else None)
    return arrays


def _of_store(name: str, attributes: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, str]:
    texts = {key: v.decode() if isinstance(v, bytes) else v for key, v in attributes.items()}  # of HDF5
    told = {key: json.loads(v) if isinstance(v, str) and v[:1] in "{[" else v for key, v in texts.items()}
    found = {f"{name}: attributes": json.dumps(without_clocks(told), default=str, indent=1)}
    for path, rows in arrays.items():
        if not CLOCK.search(path):
            found[f"{name}: {path}"] = digest(np.asarray(rows).tobytes() + str(rows.dtype).encode())
    return found


def made_by(commit: str | None, folder: Path) -> dict[str, str]:
    """What a commit, or the working tree, writes; in a folder of the same name for each."""
    way, code = folder / "way", ROOT
    if commit is not None:
        code = folder / "code"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "-q", "--detach", code, commit], check=True)
    try:
        shutil.rmtree(way, ignore_errors=True)
        make_images(way / "images")
        print(f"{commit or 'the working tree'}:", file=sys.stderr)
        run = [sys.executable, "-P", __file__, "--make"]
        subprocess.run(run, cwd=way, env=os.environ | {"PYTHONPATH": str(code)}, check=True)
        return contents(way)
    finally:
        if commit is not None:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", code], check=True)


def main(before: str, after: str | None = None) -> int:
    """Compare two commits; 1 if they differ."""
    with tempfile.TemporaryDirectory() as folder:
        old, new = (made_by(commit, Path(folder)) for commit in (before, after))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            kind = "is missing" if name not in new else "is new" if name not in old else "differs"
            print(f"{name} {kind}")
            lines = (content.get(name, "").splitlines() for content in (old, new))
            for line in list(unified_diff(*lines, lineterm="", n=0))[2:8]:
                print(f"    {line[:200]}")
    n_same = sum(old.get(name) == value for name, value in new.items())
    print(f"{n_same} of {len(old.keys() | new.keys())} are the same")
    return int(old != new)


if __name__ == "__main__":
    if sys.argv[1:] == ["--make"]:
        make_all()
    else:
        sys.exit(main(*sys.argv[1:]))
