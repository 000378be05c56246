"""Checkpoints, unpickled once: that takes 20 ms for the hundred tensors of one, and to copy them half of one.

What a test is given is a copy, known by the bytes that it was read from; whatever cannot be read fails anew.
"""

import copy
import hashlib
from collections.abc import Callable
from functools import wraps
from os import PathLike
from pathlib import Path
from typing import Any

import torch

REMEMBERED, MOST_BYTES = 50, 1_000_000  # files, and their size


def once_for_its_bytes(load: Callable) -> Callable:
    """`torch.load` that remembers."""
    known: dict[tuple, Any] = {}

    @wraps(load)
    def read(file: Any, **options: Any) -> Any:
        if not isinstance(file, str | PathLike) or not Path(file).is_file():
            return load(file, **options)
        if Path(file).stat().st_size > MOST_BYTES:
            return load(file, **options)
        digest = hashlib.sha256(Path(file).read_bytes()).digest()
        key = (digest, *sorted((name, str(value)) for name, value in options.items()))
        if key not in known:
            known[key] = load(file, **options)
            if len(known) > REMEMBERED:
                del known[next(iter(known))]
        return copied(known[key])

    return read


def copied(value: Any) -> Any:
    """The same, with tensors and containers of its own."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        made = copy.copy(value)  # with the attributes of a state dict
        made.update((name, copied(part)) for name, part in value.items())
        return made
    return [copied(part) for part in value] if isinstance(value, list) else value
