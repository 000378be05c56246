"""Decoding one file to 8-bit RGB: turned upright, and 16-bit pixels scaled to their range.

Files hardly ever record the range of their 16 bits: cameras, scanners and microscopes use 10 or 12 of them.
So the largest value in the training images becomes white, unless a file does record it. Pillow reads 16-bit
grey in full, but only the upper bytes of 16-bit colours; the lower ones are read by opening the file a second
time with the opposite byte order.
"""

import io
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from extract.images.jpeg import fast_pixels

ORIENTATION, BITS_PER_SAMPLE, PHOTOMETRIC = 0x0112, 258, 262  # EXIF and TIFF tags
WHITE_IS_ZERO = 0
ROWS, COLUMNS = 1, 2  # axes of (3, H, W)
TURNS = {  # by EXIF's orientation: whether rows become columns, and the axes to reverse after that
    2: (False, [COLUMNS]),
    3: (False, [ROWS, COLUMNS]),
    4: (False, [ROWS]),
    5: (True, []),
    6: (True, [COLUMNS]),
    7: (True, [ROWS, COLUMNS]),
    8: (True, [ROWS]),
}
FULL = 65535
COMMENT = re.compile(rb"#[^\r\n]*")  # in a plain (text) PPM
NATIVE, FOREIGN = ("L", "B") if sys.byteorder == "little" else ("B", "L")
COLOURS = ("RGB;16", "RGBA;16", "RGBX;16")
OTHER_ORDER = {c + a: c + b for c in COLOURS for a, b in ("BL", "LB", f"N{FOREIGN}")} | {"LA;16B": "RGBA"}


@dataclass(frozen=True)
class Reading:
    """How files become 8-bit RGB.

    Attributes:
        upright: whether images are turned as EXIF says.
        white: the value that becomes white, by the significant bits that a 16-bit file records (0: none);
            None to take the upper 8 bits, as version 0.1 did.
    """

    upright: bool = True
    white: Mapping[int, int] | None = field(default_factory=dict)


TODAY = Reading()


class Depth(NamedTuple):
    """The range of 16-bit pixels: significant bits that the file records, or 0, and the largest value."""

    bits: int = 0
    largest: int = 0


def decode_image(content: bytes, reading: Reading) -> tuple[torch.Tensor, Depth]:
    """Decode the first frame to RGB: grey is repeated, palettes are looked up, alpha is dropped.

    Returns:
        The pixels, uint8 (3, H, W), and their depth if they have 16 bits.

    Raises:
        Exception: it cannot be fully decoded; each of Pillow's readers has its own errors.
    """
    with Image.open(io.BytesIO(content)) as image:
        if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
            raise ValueError("32-bit pixels have no fixed range: convert it to 8 or 16 bits")
        pixels, depth = fast_pixels(image, content), Depth()
        if pixels is None:
            rgb, depth = _loaded(image, content, reading)
            pixels = TF.pil_to_tensor(rgb)
        return (turned(pixels, orientation(image)) if reading.upright else pixels), depth


def _loaded(image: Image.Image, content: bytes, reading: Reading) -> tuple[Image.Image, Depth]:
    """An opened image as RGB, decoded by Pillow."""
    tiles, bits = list(image.tile), _significant_bits(image, content)
    image.load()
    values = _deep_values(image, tiles, content, whole=reading.white is not None)
    if values is not None:
        return _scaled(values, bits, reading)
    looked_up = image.mode == "P" and "transparency" in image.info
    return (image.convert("RGBA") if looked_up else image).convert("RGB"), Depth()


def turned(pixels: torch.Tensor, orientation: int) -> torch.Tensor:
    """Pixels (3, H, W) turned upright by EXIF's orientation, 1 to 8; others leave them as they are."""
    swapped, reversed_axes = TURNS.get(orientation, (False, []))
    pixels = pixels.transpose(ROWS, COLUMNS) if swapped else pixels
    return pixels.flip(reversed_axes) if reversed_axes else pixels


def orientation(image: Image.Image) -> int:
    """EXIF's orientation of an opened image, 1 to 8; 1 if it has none."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken EXIF is no reason to reject the pixels
        return 1


def find_white(depths: np.ndarray) -> dict[int, int]:
    """The value that becomes white, by recorded significant bits: the largest possible or, for 0, found.

    If values exceed a PNG's significant bits, these count from the top, as its specification says.

    Args:
        depths: (N, 2) integers, bits and largest value of each training image; (0, 0) for 8 bits.
    """
    deep = depths[depths[:, 1] > 0]
    largest = {bits: int(deep[deep[:, 0] == bits, 1].max()) for bits in np.unique(deep[:, 0]).tolist()}
    return {bits: _span(bits, value) if bits else value for bits, value in largest.items()}


def scaled_by(depth: Depth, reading: Reading) -> int:
    """The value of an image that becomes white."""
    unknown = _span(depth.bits, depth.largest) if depth.bits else FULL
    return reading.white.get(depth.bits, unknown)


def _span(bits: int, largest: int) -> int:
    return FULL if largest >= 1 << bits else (1 << bits) - 1


def _scaled(values: np.ndarray, bits: int, reading: Reading) -> tuple[Image.Image, Depth]:
    """Scale uint16 (H, W) or (H, W, 3) to RGB; values above white are clipped."""
    depth = Depth(bits, int(values.max()))
    if reading.white is None:
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB"), depth
    white = scaled_by(depth, reading)
    scaled = (np.minimum(values, white).astype(np.uint32) * 255 + white // 2) // white
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB"), depth


def _deep_values(image: Image.Image, tiles: list, content: bytes, whole: bool) -> np.ndarray | None:
    """uint16 (H, W) or (H, W, 3) of a loaded 16-bit image; None for others.

    Unless `whole`, colours give None, and grey is taken as Pillow reads it.

    Raises:
        ValueError: colours in a layout whose two bytes Pillow cannot read.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.uint16)
        return FULL - values if whole and _is_white_zero(image) else values
    if not whole or not tiles:
        return None
    rawmodes = {_rawmode(tile) for tile in tiles}
    if rawmodes <= OTHER_ORDER.keys():
        return _both_bytes(image, rawmodes.pop(), content)
    if image.format == "TIFF" and max(image.tag_v2.get(BITS_PER_SAMPLE, (1,))) == 16:
        raise ValueError(
            "16-bit colours in an unusual layout (CMYK, planes, blended alpha): convert it to PNG"
        )
    if image.format == "PPM" and tiles[0][3] == ("RGB", FULL):
        n_values, start = image.height * image.width * 3, tiles[0][2]
        if tiles[0][0] == "ppm_plain":
            flat = np.array(COMMENT.sub(b" ", content[start:]).split()[:n_values], np.uint16)
        else:
            flat = np.frombuffer(content, ">u2", n_values, start).astype(np.uint16)
        return flat.reshape(image.height, image.width, 3)
    return None


def _is_white_zero(image: Image.Image) -> bool:
    """Whether 0 is white; Pillow inverts such grey of up to 8 bits, but not of 16."""
    return image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO


def _both_bytes(upper: Image.Image, rawmode: str, content: bytes) -> np.ndarray:
    """uint16 (H, W, 3) of a file, given the image of its upper bytes."""
    with Image.open(io.BytesIO(content)) as lower:
        lower.tile = [_as_rawmode(tile, OTHER_ORDER[_rawmode(tile)]) for tile in lower.tile]
        lower.load()
        low, high = (np.asarray(image).astype(np.uint16) for image in (lower, upper))
    if rawmode == "LA;16B":  # its four bytes were read as four channels
        return np.repeat(low[..., :1] << 8 | low[..., 1:2], 3, axis=2)
    return high[..., :3] << 8 | low[..., :3]


def _rawmode(tile: tuple) -> str:
    args = tile[3]
    return args if isinstance(args, str) else args[0] if args else ""


def _as_rawmode(tile: tuple, rawmode: str) -> tuple:
    args = rawmode if isinstance(tile[3], str) else (rawmode, *tile[3][1:])
    return type(tile)._make((*tile[:3], args)) if hasattr(tile, "_make") else (*tile[:3], args)


def _significant_bits(image: Image.Image, content: bytes) -> int:
    """Significant bits of an opened image's pixels; 0 if the file does not record them.

    TIFF's MaxSampleValue is not used: it describes a single image, and not how to show it.
    """
    if image.format == "PNG" and content[24] == 16:
        return _png_significant_bits(content)
    if image.format == "TIFF":
        bits = max(image.tag_v2.get(BITS_PER_SAMPLE, (16,)))
        return bits if bits < 16 else 0
    if image.format == "PPM" and image.tile:  # Pillow scales by the file's maximum if it is smaller
        args = image.tile[0][3]
        return 16 if not isinstance(args, str) and args[-1] != FULL else 0
    return 0


def _png_significant_bits(content: bytes) -> int:
    at = 8
    while at + 8 <= len(content):
        length, chunk = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        if chunk == b"sBIT":
            colour_type, recorded = content[25], content[at + 8 : at + 8 + length]
            bits = max(recorded[: 1 if colour_type in (0, 4) else 3], default=0)
            return bits if bits < 16 else 0
        if chunk == b"IDAT":
            break
        at += 12 + length
    return 0
