"""Time of an image's digest compared with decoding it: JPEG files of typical sizes, made here."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from extract.images.decode import TODAY, decode_image
from extract.proof.digest import digest_of

GOAL = 0.03  # at most this fraction of decoding
KINDS = {"JPEG, 500×375": ((500, 375), 60), "JPEG, 32×32": ((32, 32), 400)}  # sizes, and number of images
QUALITY = 90


def write_folder(folder: Path, size: tuple[int, int], n_images: int) -> list[Path]:
    """Write images of soft shapes and a little noise, which compress like photographs."""
    rng, paths = np.random.default_rng(0), []
    folder.mkdir()
    for i in range(n_images):
        shapes = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        noisy = np.asarray(shapes) + rng.normal(0, 6, (size[1], size[0], 3))
        paths.append(folder / f"{i}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=QUALITY)
    return paths


def measure_hashing(folder: Path, repeats: int, tiny: bool) -> pd.DataFrame:
    """Median microseconds per image of reading and decoding and of the digest; one row per kind."""
    rows = []
    for name, (size, n_images) in KINDS.items():
        paths = write_folder(folder / name, size, 4 if tiny else n_images)
        contents, taken = [path.read_bytes() for path in paths], []
        for _ in range(repeats):
            started = time.perf_counter()
            for path in paths:
                decode_image(path.read_bytes(), TODAY)
            decoded = time.perf_counter()
            for content in contents:
                digest_of(content)
            taken.append((decoded - started, time.perf_counter() - decoded))
        decoding, hashing = (1e6 * np.median(of) / len(paths) for of in zip(*taken, strict=True))
        n_bytes = sum(map(len, contents)) / len(contents)
        row = {"images": name, "bytes each": n_bytes, "decoding µs": decoding, "digest µs": hashing}
        rows.append(row | {"share %": 100 * hashing / decoding})
    return pd.DataFrame(rows)
