"""Size, speed and accuracy of each dtype and codec on real features: docs/store-size.md.

Run with `make store-size CKPT=checkpoint.pt`. The checkpoint's images go through its network once, into a
store of float32 maps; every dtype and codec is converted from it, to the rows that `extract` would have
written. Sizes are of the feature maps only. Phase II runs once per dtype and seed, since codecs are lossless.
"""

import shutil
import time
from itertools import product
from pathlib import Path

import click
import numpy as np
import pandas as pd
from rich.progress import Progress

from extract.config import ExtractConfig
from extract.dump import extract
from finetune.config import FinetuneConfig
from finetune.train import finetune
from store.arrays.codecs import CODECS
from store.arrays.gather import gather
from store.config import ConvertConfig
from store.convert import convert
from store.reader import FeatureStore
from store.schema import MAP_DTYPES

QUIET = Progress(disable=True)
MAPS = "train/feature_map"
WINDOW = 64  # rows of a random read
GROUPS = ("overall", "many", "medium", "few")


def seconds(action, *arguments: object) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - started


def made_store(folder: Path, dtype: str, codec: str, repeats: int) -> tuple[Path, float]:
    """The store in one dtype and codec, and the shortest time to write it."""
    path, taken = folder / f"{dtype}-{codec}.zarr", []
    for _ in range(repeats):
        shutil.rmtree(path, ignore_errors=True)
        config = ConvertConfig(str(folder / "float32.zarr"), str(path), dtype, codec)
        taken.append(seconds(convert, config, QUIET))
    return path, min(taken)


def read_speeds(path: Path, repeats: int) -> dict[str, float]:
    """Maps per second from a warm cache: in order, with scales applied, and random rows, as stored."""
    store = FeatureStore(path)
    n_rows = store.map_shape[0]
    array, generator = store.arrays[MAPS], np.random.default_rng(0)
    windows = [generator.integers(0, n_rows, WINDOW) for _ in range(repeats * 10)]
    in_order = min(seconds(store.read_feature_map) for _ in range(repeats))
    random = float(np.median([seconds(gather, array, rows) for rows in windows]))
    return {"read in order, maps/s": n_rows / in_order, "read at random, maps/s": WINDOW / random}


def accuracies(path: Path, dtype: str, seeds: int, folder: Path) -> pd.DataFrame:
    """Test accuracy of FSA, one row per seed."""
    rows = []
    for seed in range(seeds):
        config = FinetuneConfig(
            str(path), str(folder / f"fsa-{dtype}-{seed}"), method="fsa", seed=seed, overwrite=True
        )
        summary = finetune(config, QUIET).summary
        rows.append({name: summary[name] for name in GROUPS})
    return pd.DataFrame(rows, dtype=float)


@click.command()
@click.option("--ckpt", required=True, help="Phase I's checkpoint")
@click.option("--folder", default="runs/store-size", show_default=True, type=click.Path(path_type=Path))
@click.option("--seeds", default=3, show_default=True, help="of Phase II")
@click.option("--repeats", default=3, show_default=True, help="of everything timed")
def main(ckpt: str, folder: Path, seeds: int, repeats: int) -> None:
    """Print the two tables of docs/store-size.md."""
    source = folder / "float32.zarr"
    extract(ExtractConfig(ckpt, str(source), dtype="float32", overwrite=True), QUIET)
    rows, after = [], {}
    for dtype, codec in product(MAP_DTYPES, CODECS):
        path, writing = made_store(folder, dtype, codec, repeats)
        store = FeatureStore(path)
        shards = (file for file in (path / MAPS / "c").rglob("*") if file.is_file())
        n_rows, size = store.map_shape[0], sum(file.stat().st_size for file in shards)
        row = {
            "dtype": dtype,
            "codec": codec,
            "MiB": size / 2**20,
            "bytes a value": size / np.prod(store.map_shape),
        }
        rows.append(row | {"write, maps/s": n_rows / writing} | read_speeds(path, repeats))
        if codec == "none":
            after[dtype] = accuracies(path, dtype, seeds, folder)
    click.echo(f"{n_rows} feature maps of {' × '.join(map(str, store.map_shape[1:]))}")
    click.echo(pd.DataFrame(rows).to_string(index=False, float_format=lambda value: f"{value:,.2f}"))
    table = []
    for dtype, accuracy in after.items():
        change = accuracy - after["float32"]
        row: dict[str, str] = {"dtype": dtype}
        for name in accuracy.columns[accuracy.notna().all()]:  # not every data set has few-shot classes
            row[name] = f"{accuracy[name].mean():.2f} ± {accuracy[name].std():.2f}"
            row[f"{name}, change"] = f"{change[name].mean():+.2f} ± {change[name].std():.2f}"
        table.append(row)
    click.echo(f"\ntest accuracy of FSA in %, {seeds} seeds; change from float32, seed by seed")
    click.echo(pd.DataFrame(table).to_string(index=False))


if __name__ == "__main__":
    main()
