"""Class-specific and class-generic positions (paper, eqs. 2 and 3), in a form to draw from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

AT_ONCE = 2**22  # positions in a temporary array


@dataclass(frozen=True)
class PositionSets:
    """A set of positions for each of M maps.

    Attributes:
        order: (M, L) positions, those of the set first.
        count: (M,) size of the set; L where the set was empty and all positions are used instead.
        was_empty: (M,) bool.
    """

    order: np.ndarray
    count: np.ndarray
    was_empty: np.ndarray


def position_sets(mask: np.ndarray) -> PositionSets:
    """Sets from masks (M, L) bool; an empty set falls back to all L positions."""
    count = mask.sum(axis=1)
    dtype = np.min_scalar_type(mask.shape[1] - 1)  # small, because draws read it at random
    order = np.empty(mask.shape, dtype)
    for rows in _parts(*mask.shape):  # argsort's integers are eight times as large
        order[rows] = np.argsort(~mask[rows], axis=1, kind="stable")
    return PositionSets(order, np.where(count == 0, mask.shape[1], count), count == 0)


def specific_positions(cam: np.ndarray, tau_s: float) -> PositionSets:
    """Positions with CAM > tau_s, strictly (Algorithm 1, line 7). `cam`: (N, H, W)."""
    return position_sets(_compared(cam, lambda values: values > tau_s))


def generic_positions(cam: np.ndarray, tau_g: float) -> PositionSets:
    """Positions with CAM < tau_g, strictly (Algorithm 1, line 12). `cam`: (N, H, W)."""
    return position_sets(_compared(cam, lambda values: values < tau_g))


def _compared(cam: np.ndarray, holds: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(M, L) bool of CAMs (M, H, W), compared in float64: numpy would round the threshold to float16."""
    flat = cam.reshape(len(cam), -1)
    mask = np.empty(flat.shape, bool)
    for rows in _parts(*flat.shape):
        mask[rows] = holds(flat[rows].astype(np.float64))
    return mask


def _parts(n_rows: int, n_positions: int) -> Iterator[slice]:
    """Rows, some at a time, so that temporary arrays stay small."""
    at_once = max(1, AT_ONCE // n_positions)
    return (slice(start, start + at_once) for start in range(0, n_rows, at_once))
