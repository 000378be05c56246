"""JPEG files through torchvision's decoder: a third faster than Pillow's into a tensor, with the same pixels.

Both wrap libjpeg-turbo, but whoever built them chose its version. So torchvision's is used only if it gives
Pillow's pixels of some probes. Headers, EXIF and errors remain Pillow's. The operator itself is called, since
torchvision 0.29 announces that its Python function will go; without the operator Pillow decodes everything.
"""

from functools import cache
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode
from torchvision.transforms.v2 import functional as TF

FORMATS = ("JPEG", "MPO")  # MPO: a JPEG file with more of them behind it, as telephones write
MODES = ("RGB", "L")  # not CMYK, of which every program makes its own RGB
PROBES = (  # options of Pillow that give files which are decoded in different ways
    {"quality": 90, "subsampling": 0},
    {"quality": 90, "subsampling": 1},
    {"quality": 75, "subsampling": 2},
    {"quality": 30, "subsampling": 2, "progressive": True},
    {"quality": 90, "keep_rgb": True},
)


def fast_pixels(image: Image.Image, content: bytes) -> torch.Tensor | None:
    """The pixels of an opened image, uint8 (3, H, W), not turned; None if Pillow has to decode it.

    Args:
        image: opened by Pillow, not loaded.
        content: the file's bytes.
    """
    if image.format not in FORMATS or image.mode not in MODES or not gives_same_pixels():
        return None
    return _decoded(content, (image.height, image.width))


def _decoded(content: bytes, size: tuple[int, int]) -> torch.Tensor | None:
    try:
        pixels = decode_jpeg(torch.from_numpy(np.frombuffer(content, np.uint8).copy()))
    except RuntimeError:  # Pillow tells what is wrong with it, or can decode it
        return None
    return pixels if pixels.shape[1:] == size else None


def decode_jpeg(content: torch.Tensor) -> torch.Tensor:
    """The pixels (3, H, W) of a file's bytes (n,), both uint8; rows lie as in the image, channels last.

    Raises:
        RuntimeError: it cannot be decoded, or this torchvision has no such operator.
    """
    try:
        operator = torch.ops.image.decode_jpeg
    except AttributeError as error:
        raise RuntimeError("no operator") from error
    return operator(content, ImageReadMode.RGB.value, False)


@cache
def gives_same_pixels() -> bool:
    """Whether torchvision's decoder gives Pillow's pixels on this machine, found by decoding probes."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    coloured = Image.fromarray(noise).resize((75, 53), Image.Resampling.BICUBIC)
    for image in (coloured, coloured.convert("L")):
        for options in PROBES:
            file = BytesIO()
            image.save(file, "JPEG", **options)
            expected = TF.pil_to_tensor(Image.open(file).convert("RGB"))
            found = _decoded(file.getvalue(), expected.shape[1:])
            if found is None or not torch.equal(found, expected):
                return False  # then Pillow decodes everything, as it always did
    return True
