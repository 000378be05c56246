"""Speed of reading and writing a store, compared with a raw file and with other readers of the same store.

Run with `make bench-store`. 4,096 feature maps of 7×7×2048 float16 (0.8 GB), everything in one run and
from the page cache. Repeats of all candidates are interleaved, so that a disturbance does not hit only one.
"""

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event, Thread

import click
import h5py
import numpy as np
import pandas as pd
import zarr

from store.arrays.gather import gather
from store.layout import store_layout
from store.reader import FeatureStore
from store.spec import StoreSpec
from store.writer import IN_FLIGHT, write_store

H, W, C = 7, 7, 2048
N_CLASSES = 100
BATCH = 128
WINDOW = 64  # rows of a random read
GOALS = {"random": 0.8, "sequential": 0.8, "write": 0.6}
MAPS = "train/feature_map"


def made_rows(n_rows: int) -> dict[str, np.ndarray]:
    """A train split of maps with two values in five zero, as after a ReLU, and its other arrays."""
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(N_CLASSES, C)).astype(np.float32)
    label = np.sort(generator.integers(0, N_CLASSES, n_rows))
    maps = np.empty((n_rows, H, W, C), np.float16)
    pooled, cam = np.empty((n_rows, C), np.float32), np.empty((n_rows, H, W), np.float32)
    for start in range(0, n_rows, BATCH):
        rows = slice(start, start + BATCH)
        maps[rows] = np.maximum(generator.standard_normal(maps[rows].shape, np.float32) + 0.25, 0)
        exact = maps[rows].astype(np.float32)
        pooled[rows] = exact.mean((1, 2))
        raw = np.einsum("bhwc,bc->bhw", exact, weight[label[rows]])
        low, high = raw.min((1, 2), keepdims=True), raw.max((1, 2), keepdims=True)
        cam[rows] = (raw - low) / (high - low)
    rows = {"classifier/weight": weight, "classifier/bias": np.zeros(N_CLASSES)}
    for split, n in {"train": n_rows, "test": N_CLASSES}.items():
        rows |= {f"{split}/label": label[:n], f"{split}/sample_index": np.arange(n)}
        rows |= {f"{split}/view": np.zeros(n), f"{split}/pooled": pooled[:n]}
    return rows | {MAPS: maps, "train/cam": cam}


def write(path: Path, rows: dict[str, np.ndarray]) -> None:
    """Write a store as `extract` does, batch by batch."""
    n_rows = len(rows[MAPS])
    axes = {"H": H, "W": W, "C": C}
    layouts = store_layout(
        {"train": axes | {"N": n_rows}, "test": axes | {"N": N_CLASSES}}, N_CLASSES, "float16", BATCH
    )
    plan = StoreSpec(layouts, "float16", [str(k) for k in range(N_CLASSES)], {}, {})
    known = {name: value for name, value in rows.items() if name in layouts and "checksum" not in name}
    streamed = {"train": ("pooled", "feature_map", "cam"), "test": ("pooled",)}
    for split, names in streamed.items():
        for name in names:
            known.pop(f"{split}/{name}")
    with write_store(path, plan, resume=False, overwrite=False) as writer:
        writer.write_known(known)
        for split, names in streamed.items():
            for start in range(0, len(rows[f"{split}/pooled"]), BATCH):
                batch = {name: rows[f"{split}/{name}"][start : start + BATCH] for name in names}
                writer.write(split, start, batch)
        writer.finish()


def write_raw(path: Path, rows: dict[str, np.ndarray]) -> None:
    """Write the same bytes of maps to one file, and sync it."""
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(rows[MAPS]), BATCH):
            file.write(rows[MAPS][start : start + BATCH])
        os.fsync(file.fileno())


Reader = Callable[[np.ndarray, np.ndarray], object]  # rows, out


def readers(folder: Path, shape: tuple[int, ...]) -> dict[str, Reader]:
    """How each candidate reads rows into a buffer."""
    raw = np.memmap(folder / "raw", np.float16, "r", shape=shape)
    stores = {"zarr": folder / "s.zarr", "HDF5": folder / "s.h5"}
    ours = {name: FeatureStore(path).arrays[MAPS] for name, path in stores.items()}
    by_zarr = zarr.open_group(stores["zarr"], mode="r")[MAPS]
    by_h5py = h5py.File(stores["HDF5"])[MAPS]

    def read_h5py(rows: np.ndarray, out: np.ndarray) -> None:
        distinct, place = np.unique(rows, return_inverse=True)  # h5py needs them ascending
        out[:] = by_h5py[distinct][place] if len(distinct) < len(by_h5py) else by_h5py[:]

    def read_zarr(rows: np.ndarray, out: np.ndarray) -> None:
        out[:] = by_zarr.oindex[rows]

    found = {
        "raw file, numpy memmap": lambda rows, out: np.take(raw, rows, axis=0, out=out, mode="clip"),
        "zarr, gather": lambda rows, out: gather(ours["zarr"], rows, out),
        "HDF5, gather": lambda rows, out: gather(ours["HDF5"], rows, out),
        "zarr, zarr-python": read_zarr,
        "HDF5, h5py": read_h5py,
    }
    try:
        import tensorstore
    except ImportError:
        return found
    where = {"driver": "file", "path": str(stores["zarr"] / MAPS)}
    theirs = tensorstore.open({"driver": "zarr3", "kvstore": where}, read=True).result()
    return found | {"zarr, tensorstore": lambda rows, out: np.copyto(out, theirs[rows].read().result())}


def seconds(action: Callable[..., object], *arguments: object) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - started


def time_reads(candidates: dict[str, Reader], n_rows: int, repeats: int) -> pd.DataFrame:
    """Median seconds per row of random and sequential reads."""
    generator = np.random.default_rng(1)
    out = np.empty((WINDOW, H, W, C), np.float16)
    for read in candidates.values():  # opens and maps everything
        for start in range(0, n_rows, WINDOW):
            read(np.arange(start, start + WINDOW), out)
    taken = []
    for repeat in range(repeats):
        start = repeat * WINDOW % (n_rows - WINDOW + 1)
        kinds = {
            "random": generator.integers(0, n_rows, WINDOW),
            "sequential": np.arange(start, start + WINDOW),
        }
        for name, read in candidates.items():
            if repeat % 10 == 0 or "gather" in name or "raw" in name:  # the slow ones less often
                taken += [(name, kind, seconds(read, rows, out)) for kind, rows in kinds.items()]
    frame = pd.DataFrame(taken, columns=["name", "kind", "seconds"])
    return frame.pivot_table("seconds", "name", "kind", aggfunc="median").loc[list(candidates)] / WINDOW


def time_writes(folder: Path, rows: dict[str, np.ndarray], repeats: int) -> pd.Series:
    """Median seconds per row of writing everything to disk; the last file of each stays."""
    ways = {
        "raw file, numpy memmap": ("raw", write_raw),
        "zarr, gather": ("s.zarr", write),
        "HDF5, gather": ("s.h5", write),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, (file, way) in ways.items():
            path = folder / file
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            os.sync()  # so that no one pays for the previous one
            np.ones(2 * rows[MAPS].nbytes, np.uint8)  # on a virtual machine, the first use of a page is slow
            taken[name].append(seconds(way, path, rows))
    return pd.Series({name: np.median(t) for name, t in taken.items()}) / len(rows[MAPS])


def peak_memory(action: str, path: Path, n_rows: int) -> int:
    """Bytes by which a fresh process grows while it reads a store, or writes one."""
    command = [sys.executable, __file__, "--peak", action, "--folder", str(path), "--rows", str(n_rows)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_peak(action: str, path: Path, n_rows: int) -> int:
    """The measurement in `peak_memory`'s process. Mapped files do not count: they are page cache."""
    work = prepare_reading(path, n_rows) if action == "read" else prepare_writing(path, n_rows)
    gc.collect()
    before = memory("RssAnon")
    peak, done = before, Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, memory("RssAnon"))

    watcher = Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return peak - before


def prepare_reading(path: Path, n_rows: int) -> Callable[[], None]:
    """Read rows of a store in random order, window by window."""
    array = FeatureStore(path).arrays[MAPS]
    out = np.empty((WINDOW, H, W, C), np.float16)
    order = np.random.default_rng(0).permutation(n_rows)

    def work() -> None:
        for start in range(0, n_rows, WINDOW):
            gather(array, order[start : start + WINDOW], out)

    return work


def prepare_writing(path: Path, n_rows: int) -> Callable[[], None]:
    """Write rows that all share memory."""
    rows = made_rows(BATCH)
    for name in ("feature_map", "label", "sample_index", "view", "pooled", "cam"):
        value = rows[f"train/{name}"]
        rows[f"train/{name}"] = np.broadcast_to(value[:1], (n_rows, *value.shape[1:]))
    return partial(write, path, rows)


def memory(field: str) -> int:
    """A line of the process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def report(reads: pd.DataFrame, writes: pd.Series) -> pd.DataFrame:
    """Print GB/s of every candidate, and its ratio to the raw file."""
    table = reads.assign(write=writes)
    speed = H * W * C * 2 / table / 1e9
    ratio = speed / speed.loc["raw file, numpy memmap"]
    columns = {}
    for kind in GOALS:
        columns |= {f"{kind} GB/s": speed[kind], f"{kind} ratio": ratio[kind]}
    for name in ("zarr, gather", "HDF5, gather"):
        for kind, goal in GOALS.items():
            if ratio.loc[name, kind] < goal:
                click.echo(
                    f"MISSED: {name}, {kind}: {ratio.loc[name, kind]:.2f} of the raw file, goal {goal}"
                )
    return pd.DataFrame(columns).loc[table.index]


def print_peaks(folder: Path, n_rows: int) -> None:
    """Print the peak memory of reading and writing stores of two sizes, and the bound."""
    row_bytes = H * W * C * 2
    block_bytes = store_layout({"train": {"N": n_rows, "H": H, "W": W, "C": C}}, 2, "float16", BATCH)[MAPS]
    bounds = {
        "read": WINDOW * row_bytes,  # the caller's buffer
        "write": (IN_FLIGHT + 2) * block_bytes.block_rows * row_bytes,  # waiting, being written, being filled
    }
    for action, bound in bounds.items():
        for n in (n_rows // 2, n_rows):
            peak = peak_memory(action, folder / ("s.zarr" if action == "read" else "peak.zarr"), n)
            shutil.rmtree(folder / "peak.zarr", ignore_errors=True)
            click.echo(
                f"peak memory, {action} {n} rows ({n * row_bytes / 2**20:.0f} MiB): "
                f"{peak / 2**20:.0f} MiB; buffers take {bound / 2**20:.0f} MiB"
            )


@click.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), help="on the disk to measure; a temporary one else"
)
@click.option("--rows", default=4096, show_default=True)
@click.option("--repeats", default=200, show_default=True, help="of reads; writes are repeated 5 times")
@click.option("--peak", type=click.Choice(["read", "write"]), hidden=True)
def main(folder: Path | None, rows: int, repeats: int, peak: str | None) -> None:
    """Time reads and writes of feature maps; print one table."""
    if peak:
        click.echo(json.dumps(measure_peak(peak, folder, rows)))
        return
    with tempfile.TemporaryDirectory(dir=folder) as name:
        content = made_rows(rows)
        writes = time_writes(Path(name), content, repeats=5)
        shape = content[MAPS].shape
        del content
        reads = time_reads(readers(Path(name), shape), rows, repeats)
        click.echo(f"{rows} maps of {H}×{W}×{C} float16, {WINDOW} rows a read, warm cache, medians")
        click.echo(report(reads, writes).to_string(float_format="%.2f", na_rep=""))
        print_peaks(Path(name), rows)


if __name__ == "__main__":
    main()
