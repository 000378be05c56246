"""Feature space augmentation: vectors of a tail image fused with a confusing class's (paper, sec. 4.2)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, device

from finetune.mixing.in_place import draw_counts_in_place, draw_vectors_in_place
from finetune.sampling.arrays import Array, on_host, picked
from finetune.sampling.philox import below
from finetune.sampling.plan import Plan, PlanInputs, drawn_anywhere

if TYPE_CHECKING:  # the command line imports this for the methods' names and must not wait for torch
    import torch

    from finetune.loading.features import Features
    from finetune.loading.residency import Maps


@dataclass(frozen=True)
class Fusion:
    """Samples that are each the mean of L vectors, from a tail row and a donor; see `Mix`.

    Attributes:
        row: (T, A) int64 tail row of each sample.
        donor_row: (T, A) int64 row that lends the class-generic vectors.
        n_specific: (T, A) int64 vectors drawn from the tail row; the other L − n_specific are the donor's.
        vectors: (T, A, L) int32 or int64 drawn vectors, each as row · L + position.
        empty: (T, 2) samples with an empty class-specific set, and with an empty set of the donor (its
            class-generic one; its class-specific one where vectors are replaced in place); on the host.
        is_mixed: (T, A) bool, which samples are needed; None for all.
    """

    row: Array
    donor_row: Array
    n_specific: Array
    vectors: Array
    empty: np.ndarray
    is_mixed: Array | None = None

    @property
    def n_samples(self) -> int:
        """A."""
        return self.row.shape[1]

    @property
    def n_empty(self) -> np.ndarray:
        """See `Mix`."""
        return self.empty.sum(axis=0)

    def write(self, places: "torch.Tensor", features: "Features", maps: "Maps") -> None:
        """See `Mix`."""
        import torch

        if self.is_mixed is None:
            places.copy_(maps.fused(self.vectors, self.row, self.donor_row), non_blocking=True)
            return
        needed = self.is_mixed
        made = maps.fused(self.vectors[needed], self.row[needed], self.donor_row[needed])
        places[torch.as_tensor(needed, device=places.device)] = made.to(places.device, non_blocking=True)


@drawn_anywhere
def augmentation_plan(inputs: PlanInputs, start: int, stop: int) -> Plan:
    """Algorithm 1: N_t tail samples, N_a augmented ones for each, and as many head samples as both."""
    tail_row = inputs.tail_rows(start, stop, inputs.n_tail)
    head_row = inputs.head_rows(start, stop, inputs.n_tail * (1 + inputs.augmented_per_sample))
    xp = array_namespace(tail_row)
    augmented_row = xp.repeat(tail_row, inputs.augmented_per_sample, axis=1)
    donor_row = draw_donors(inputs, start, stop, tail_row, inputs.augmented_per_sample)
    mix = _fusion(inputs, start, stop, augmented_row, donor_row, None)
    return Plan(xp.concat([tail_row, head_row, augmented_row], axis=1), mix)


def fused(
    inputs: PlanInputs, start: int, stop: int, row: Array, is_mixed: Array | None, batch: Array
) -> Fusion:
    """Fused samples in place of rows (T, A), one for each, in batches of any sampling.

    Args:
        inputs: what the plan is drawn from.
        start, stop: iterations.
        row: the rows.
        is_mixed: (T, A) bool, which of them are replaced; None for all.
        batch: all rows of their batches, which this mix does not ask for.
    """
    donor_row = draw_donors(inputs, start, stop, row, 1)
    if is_mixed is not None:  # other rows may be of classes without confusing ones
        donor_row = array_namespace(row).where(is_mixed, donor_row, row)
    return _fusion(inputs, start, stop, row, donor_row, is_mixed)


def _fusion(
    inputs: PlanInputs, start: int, stop: int, row: Array, donor_row: Array, is_mixed: Array | None
) -> Fusion:
    """Fusions of rows with donors, both (T, A)."""
    xp = array_namespace(row)
    of_donor = inputs.specific if inputs.in_place else inputs.generic
    if inputs.in_place:
        n_specific = draw_counts_in_place(inputs, start, stop, donor_row)
        vectors = draw_vectors_in_place(inputs, start, stop, row, donor_row, n_specific)
    else:
        n_specific = draw_specific_counts(inputs, start, stop, row.shape[1])
        vectors = draw_vectors(inputs, start, stop, row, donor_row, n_specific)
    was_empty = inputs.specific.was_empty[row], of_donor.was_empty[donor_row]
    if is_mixed is not None:
        was_empty = tuple(of_sample & is_mixed for of_sample in was_empty)
    empty = on_host(xp.stack([xp.sum(of_sample, axis=1) for of_sample in was_empty], axis=1))
    return Fusion(row, donor_row, n_specific, vectors, empty, is_mixed)


def draw_donors(inputs: PlanInputs, start: int, stop: int, tail_row: Array, n_each: int) -> Array:
    """(T, N_t · N_a) donor rows for tail rows (T, N_t): one image from each of N_a confusing classes.

    Which classes may lend at all (`--donors`) was decided when `inputs.confusing` was made. Classes are drawn
    without replacement; if N_a exceeds N_f, they repeat in the same order.

    Args:
        inputs: what the plan is drawn from.
        start, stop: iterations.
        tail_row: the rows.
        n_each: N_a.
    """
    xp = array_namespace(tail_row)
    confusing = inputs.confusing[inputs.label[tail_row]]  # (T, N_t, N_f)
    keys = inputs.draws.uniform("order of confusing classes", start, stop, *confusing.shape[1:])
    shuffled = xp.take_along_axis(confusing, xp.argsort(keys, axis=-1, stable=True), axis=-1)
    turn = np.arange(n_each) % confusing.shape[-1]
    classes = xp.reshape(shuffled[..., turn], (len(tail_row), -1))  # (T, N_t · N_a)
    return inputs.rows_of_classes(classes, inputs.draws.uniform("donor row", start, stop, classes.shape[1]))


def draw_specific_counts(inputs: PlanInputs, start: int, stop: int, n: int) -> Array:
    """(T, n) numbers of class-specific vectors: round(γ · L), at least 1 and at most L − 1."""
    low, high = inputs.gamma
    n_positions = inputs.specific.order.shape[1]
    gamma = low + (high - low) * inputs.draws.uniform("gamma", start, stop, n)
    xp = array_namespace(gamma)
    return xp.astype(xp.clip(xp.round(gamma * n_positions), 1, n_positions - 1), xp.int64)


def draw_vectors(
    inputs: PlanInputs, start: int, stop: int, augmented_row: Array, donor_row: Array, n_specific: Array
) -> Array:
    """Draw L vectors for every augmented sample, uniformly with replacement (Algorithm 1, lines 15, 16).

    The first n_specific come from the tail row's class-specific positions, the rest from the donor's
    class-generic ones; their order does not matter, since their mean is taken.

    Returns:
        (T, A, L) row · L + position, int32 where that fits.
    """
    uniform = inputs.draws.uniform(
        "vector", start, stop, augmented_row.shape[1], inputs.specific.order.shape[1]
    )
    xp = array_namespace(uniform)
    n_rows, n_positions = inputs.specific.order.shape
    dtype = xp.int32 if n_rows * n_positions < 2**31 else xp.int64
    positions = xp.arange(n_positions, device=device(uniform))
    from_tail = positions < n_specific[:, :, None]  # (T, A, L)
    row = xp.where(from_tail, augmented_row[:, :, None], donor_row[:, :, None])
    count = xp.where(
        from_tail,
        inputs.specific.count[augmented_row][..., None],
        inputs.generic.count[donor_row][..., None],
    )
    place = row * n_positions + below(uniform, count)  # index into the flattened `order` arrays
    position = xp.where(from_tail, picked(inputs.specific.order, place), picked(inputs.generic.order, place))
    return xp.astype(row * n_positions + position, dtype)


def fusion_facts(inputs: PlanInputs, n_empty: np.ndarray, n_samples: int) -> dict[str, Any]:
    """Confusing classes of each mixed class, and the share of empty sets, which fall back to all positions.

    Args:
        inputs: what the plan was drawn from.
        n_empty: (2,) samples with an empty class-specific and an empty class-generic set.
        n_samples: augmented samples in total.
    """
    classes = np.concatenate([inputs.head_tail.tail, inputs.head_tail.head])  # the tail first, as ever
    mixed = classes[inputs.confusing[classes, 0] >= 0].tolist()
    facts: dict[str, Any] = {"confusing_classes": {str(c): inputs.confusing[c].tolist() for c in mixed}}
    kinds = ("specific", "donor_specific" if inputs.in_place else "generic")
    for name, n in zip(kinds, n_empty.tolist(), strict=True):
        facts[f"empty_{name}_percent"] = 100 * n / max(1, n_samples)
    return facts
