"""Class-specific and class-generic positions (paper, eqs. 2 and 3), in a form to draw from."""

from dataclasses import dataclass

import numpy as np


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
    order = np.argsort(~mask, axis=1, kind="stable").astype(dtype)
    return PositionSets(order, np.where(count == 0, mask.shape[1], count), count == 0)


def specific_positions(cam: np.ndarray, tau_s: float) -> PositionSets:
    """Positions with CAM > tau_s, strictly (Algorithm 1, line 7). `cam`: (N, H, W)."""
    return position_sets(_flat(cam) > tau_s)


def generic_positions(cam: np.ndarray, tau_g: float) -> PositionSets:
    """Positions with CAM < tau_g, strictly (Algorithm 1, line 12). `cam`: (N, H, W)."""
    return position_sets(_flat(cam) < tau_g)


def _flat(cam: np.ndarray) -> np.ndarray:
    # In float64: numpy would round the threshold to the CAM's float16.
    return cam.reshape(len(cam), -1).astype(np.float64)
