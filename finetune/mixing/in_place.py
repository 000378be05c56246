"""Fusion after an earlier block (paper, sec. 5.4, Fig. 9): vectors replaced in place, as later blocks need.

The class-specific vectors of a confusing image are replaced by the tail image's with a random ratio, and all
others stay where they are. Which positions are class-specific is what the last block's CAM says, enlarged.
"""

import numpy as np
from array_api_compat import array_namespace, device

from finetune.sampling.arrays import Array, picked
from finetune.sampling.philox import below
from finetune.sampling.plan import PlanInputs


def enlarged(cam: np.ndarray, height: int, width: int) -> np.ndarray:
    """CAMs (N, H, W) at another size, each position with the value of the nearest one: (N, height, width)."""
    of_row, of_column = (
        ((np.arange(n) + 0.5) * size / n).astype(np.int64)
        for n, size in zip((height, width), cam.shape[1:], strict=True)
    )
    return cam[:, of_row[:, None], of_column]


def draw_counts_in_place(inputs: PlanInputs, start: int, stop: int, donor_row: Array) -> Array:
    """(T, A) numbers of replaced vectors: round(γ · those that may be), at least 1."""
    low, high = inputs.gamma
    gamma = low + (high - low) * inputs.draws.uniform("gamma", start, stop, donor_row.shape[1])
    xp, most = array_namespace(gamma), inputs.specific.count[donor_row]
    return xp.clip(xp.astype(xp.round(gamma * most), xp.int64), 1, most)


def draw_vectors_in_place(
    inputs: PlanInputs, start: int, stop: int, row: Array, donor_row: Array, n_replaced: Array
) -> Array:
    """The vector at each position of each new map.

    Of the donor's class-specific positions, `n_replaced` are chosen without replacement; each gets a vector
    drawn uniformly from the tail row's class-specific ones.

    Args:
        inputs: what the plan is drawn from.
        start, stop: iterations.
        row, donor_row: (T, A) tail rows, and the rows whose maps are changed.
        n_replaced: (T, A) of `draw_counts_in_place`.

    Returns:
        (T, A, L) int64 row · L + position, by position.
    """
    specific = inputs.specific
    n_positions = specific.order.shape[1]
    shape = (donor_row.shape[1], n_positions)
    keys = inputs.draws.uniform("order of positions", start, stop, *shape)
    uniform = inputs.draws.uniform("vector", start, stop, *shape)
    xp = array_namespace(keys)
    places = xp.arange(n_positions, device=device(keys))  # in the donor's order, class-specific ones first
    keys = xp.where(places < specific.count[donor_row][..., None], keys, xp.full_like(keys, 2.0))
    rank = xp.argsort(xp.argsort(keys, axis=-1, stable=True), axis=-1, stable=True)
    drawn = row[..., None] * n_positions + below(uniform, specific.count[row][..., None])
    lent = row[..., None] * n_positions + xp.astype(picked(specific.order, drawn), xp.int64)
    position = xp.astype(specific.order[donor_row], xp.int64)
    vectors = xp.where(rank < n_replaced[..., None], lent, donor_row[..., None] * n_positions + position)
    return xp.take_along_axis(vectors, xp.argsort(position, axis=-1, stable=True), axis=-1)
