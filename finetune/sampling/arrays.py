"""Arrays of numpy on the host or of torch on a device: plans are drawn from either, by the same code.

The functions that both have are those of Python's array API standard, through array_api_compat. None of them
rounds differently on a GPU: integers, comparisons, products of two float64 numbers and single additions.
"""

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, TypeVar, Union

import numpy as np
from array_api_compat import array_namespace

if TYPE_CHECKING:  # the command line imports this for the methods' names and must not wait for torch
    import torch

Array = Union[np.ndarray, "torch.Tensor"]
Value = TypeVar("Value")


def on_device(value: Value, device: "torch.device") -> Value:
    """Arrays of numpy as tensors on a device; dataclasses with such fields; anything else as it is."""
    import torch

    if isinstance(value, np.ndarray):
        # torch does next to nothing with unsigned integers of more than 8 bits.
        wider = {"uint16": np.int32, "uint32": np.int64}.get(value.dtype.name, value.dtype)
        return torch.as_tensor(value.astype(wider), device=device)  # a copy: it may be read-only
    if is_dataclass(value):
        return replace(value, **{f.name: on_device(getattr(value, f.name), device) for f in fields(value)})
    return value


def cut(value: Value, start: int, stop: int) -> Value:
    """Rows `start` to `stop` (exclusive) of arrays; dataclasses with such fields; anything else as it is."""
    if is_dataclass(value):
        return replace(value, **{f.name: cut(getattr(value, f.name), start, stop) for f in fields(value)})
    return value[start:stop] if getattr(value, "ndim", 0) else value


def on_host(array: Array) -> np.ndarray:
    """The same numbers as an array of numpy."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def picked(values: Array, index: Array) -> Array:
    """Values at places of any shape, counted as if they lay in one row."""
    xp = array_namespace(values)
    return xp.reshape(xp.take(xp.reshape(values, (-1,)), xp.reshape(index, (-1,)), axis=0), index.shape)
