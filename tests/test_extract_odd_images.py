"""Images that look odd and are good: 16-bit grey, palettes, WebP and others are read as RGB."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bad_input import FOLDER, TINY, succeed
from PIL import Image

from extract.checkpoints.checkpoint import load_checkpoint
from extract.images.image_set import read_image

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def grey_16_bit(folder: Path) -> Path:
    ramp = np.linspace(0, 65535, 144, dtype=np.uint16).reshape(12, 12)
    Image.fromarray(ramp).save(folder / "odd.png")
    return folder / "odd.png"


def palette_with_transparency(folder: Path) -> Path:
    image = Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12)).convert("P")
    image.save(folder / "odd.png", transparency=bytes(range(256)))
    return folder / "odd.png"


def rgba(folder: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 4), np.uint8)
    Image.fromarray(pixels).save(folder / "odd.png")
    return folder / "odd.png"


def grey_jpeg(folder: Path) -> Path:
    Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12)).save(folder / "odd.JPEG")
    return folder / "odd.JPEG"


def webp(folder: Path) -> Path:
    Image.new("RGB", (12, 9), (200, 100, 0)).save(folder / "odd.webp", lossless=True)
    return folder / "odd.webp"


def ppm(folder: Path) -> Path:
    Image.new("RGB", (9, 12), (200, 100, 0)).save(folder / "odd.ppm")
    return folder / "odd.ppm"


@pytest.mark.parametrize("make", [grey_16_bit, palette_with_transparency, rgba, grey_jpeg, webp, ppm])
def test_unusual_image_is_read_as_rgb(images: Path, make: Callable[[Path], Path]) -> None:
    path = make(images / "train" / "bee")
    pixels = read_image(path).permute(1, 2, 0).numpy()
    assert pixels.shape in {(12, 12, 3), (9, 12, 3), (12, 9, 3)}
    if make in (webp, ppm):
        assert (pixels == (200, 100, 0)).all()
    else:
        assert len(np.unique(pixels)) > 100  # neither clipped nor blank
    succeed("train", *FOLDER, *TINY, "--root", images, "--out", "phase1")
    assert load_checkpoint(Path("phase1/checkpoint.pt")).class_counts == [8, 7, 4]
