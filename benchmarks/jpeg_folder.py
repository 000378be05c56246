"""JPEG files that decode like photographs: noise at every scale, the coarser the stronger."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (500, 375)  # width and height, the median photograph of ImageNet
SCALES = {96: 50.0, 32: 28.0, 12: 16.0, 5: 9.0, 2: 5.0, 1: 2.5}  # pixels of a grain, and its strength
QUALITY = 90


def write_class_folders(root: Path, n_images: int, n_classes: int) -> int:
    """Write `train/` with nine tenths of the images, and `test/`; returns the bytes of all files."""

    def write(number: int) -> int:
        split = "train" if number < n_images - max(n_classes, n_images // 10) else "test"
        path = root / split / f"class {number % n_classes}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(number).save(path, quality=QUALITY)
        return path.stat().st_size

    with ThreadPoolExecutor() as pool:
        return sum(pool.map(write, range(n_images)))


def photograph(seed: int) -> Image.Image:
    """An RGB image of SIZE; luminance varies more than colour, as in photographs."""
    generator = np.random.default_rng(seed)
    pixels = np.full((SIZE[1], SIZE[0], 3), generator.integers(90, 160), np.float32)
    for grain, strength in SCALES.items():
        cells = (SIZE[1] // grain + 2, SIZE[0] // grain + 2)
        grey = generator.normal(0, strength, cells).astype(np.float32)
        smooth = Image.fromarray(grey).resize(SIZE, Image.Resampling.BICUBIC)
        pixels += np.asarray(smooth)[..., None]
        if grain > 8:
            tint = [
                Image.fromarray(generator.normal(0, strength / 3, cells).astype(np.float32)) for _ in "rgb"
            ]
            pixels += np.dstack([np.asarray(each.resize(SIZE, Image.Resampling.BICUBIC)) for each in tint])
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
