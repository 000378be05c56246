"""Image files that Pillow cannot write: PNG and TIFF with 16 bits a channel."""

import struct
import zlib

import numpy as np

COLOUR_TYPES = {
    1: 0,
    2: 4,
    3: 2,
    4: 6,
}  # PNG's, by the number of channels: grey or RGB, with or without alpha


def png16(values: np.ndarray, significant_bits: int | None = None) -> bytes:
    """A PNG of (H, W, C) 16-bit values; significant bits are recorded if given, 16 for alpha."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    bits = [significant_bits] * (channels - 1 + channels % 2) + [16] * (1 - channels % 2)
    told = [] if significant_bits is None else [(b"sBIT", bytes(bits))]
    chunks = [(b"IHDR", header), *told, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def tiff16(values: np.ndarray, order: str, compressed: bool, bits: int = 16) -> bytes:
    """A TIFF of (H, W, C) 16-bit values, byte order `<` or `>`; packed if 12 bits are asked for."""
    height, width, channels = values.shape
    if bits == 12:  # two values in three bytes
        a, b = values.reshape(-1, 2).astype(np.uint16).T
        pixels = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], axis=1).astype(np.uint8).tobytes()
    else:
        pixels = values.astype(f"{order}u2").tobytes()
    pixels = zlib.compress(pixels) if compressed else pixels
    tags = {  # short values, except for the two offsets; bits of each channel follow the tags
        256: [width],
        257: [height],
        258: [bits] * channels,
        259: [8 if compressed else 1],
        262: [2 if channels == 3 else 1],
        273: [8 + 2 + 10 * 12 + 4 + 6],
        277: [channels],
        278: [height],
        279: [len(pixels)],
        284: [1],
    }
    entries = b""
    for tag, content in tags.items():
        kind = "I" if tag in (273, 279) else "H"
        packed = struct.pack(f"{order}{len(content)}{kind}", *content)
        value = struct.pack(f"{order}I", 8 + 2 + 10 * 12 + 4) if len(packed) > 4 else packed.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, 4 if kind == "I" else 3, len(content)) + value
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    behind = struct.pack(f"{order}3H", *[bits] * 3)
    return start + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + behind + pixels
