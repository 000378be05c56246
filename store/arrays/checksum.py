"""CRC-32C of rows and of the metadata that describe them."""

import json
from typing import Any

import google_crc32c
import numpy as np

from store.layout import ArrayLayout


def crc32c(content: np.ndarray | bytes) -> int:
    """CRC-32C of an array's bytes in row order, or of bytes."""
    if isinstance(content, np.ndarray):
        content = np.ascontiguousarray(content).reshape(-1).view(np.uint8)
    return google_crc32c.value(content)


def metadata_checksum(attributes: dict[str, Any], layouts: dict[str, ArrayLayout]) -> int:
    """CRC-32C of the attributes and of every array's shape and dtype, as canonical JSON.

    `complete` is left out: it is written last.
    """
    described = {path: [list(layout.shape), layout.dtype] for path, layout in layouts.items()}
    content = {"attributes": {k: v for k, v in attributes.items() if k != "complete"}, "arrays": described}
    return crc32c(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
