"""Calibrated Gaussians (TailCalib, Vigneswaran et al. 2021; for few images, Yang et al. 2021).

A new sample is drawn around the mean of a row and of the k nearest class means, with the mean of these
classes' covariances: classes with many images lend their spread to those with few. (TailCalib, eqs. 7, 8.)
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.mixing.gaussians import ClassNoise
from finetune.mixing.pooled import PooledMix
from finetune.sampling.arrays import Array
from finetune.sampling.philox import below
from finetune.sampling.plan import PlanInputs

if TYPE_CHECKING:  # the command line imports this for the methods' names and must not wait for torch
    import torch

    from finetune.loading.features import Features
    from finetune.loading.residency import Maps


@dataclass(frozen=True)
class Calibrated(PooledMix):
    """Samples from Gaussians around rows and their nearest class means; see `PooledMix`.

    Attributes:
        neighbour: (T, A, k) int64 the classes nearest to each.
        vector: (T, A, k) int64 a noise vector of each of these classes, as class · M + i.
        of_classes: means and noise.
    """

    neighbour: Array
    vector: Array
    of_classes: ClassNoise

    def write(self, places: "torch.Tensor", features: "Features", maps: "Maps | None") -> None:
        """See `Mix`. The sum of k independent vectors over √k has the mean of their covariances."""
        import torch
        from torch.nn.functional import embedding_bag

        mean, noise = self.of_classes.on(places.device)
        neighbour, vector = (
            torch.as_tensor(index, device=places.device) for index in (self.neighbour, self.vector)
        )
        if self.is_mixed is None:
            neighbour, vector = neighbour.flatten(0, 1), vector.flatten(0, 1)
            row = places.flatten(0, 1)
        else:
            needed = torch.as_tensor(self.is_mixed, device=places.device)
            neighbour, vector, row = neighbour[needed], vector[needed], places[needed]
        k = neighbour.shape[1]
        centre = (row + embedding_bag(neighbour, mean, mode="sum")) / (k + 1)
        made = centre.add_(embedding_bag(vector, noise, mode="sum"), alpha=k**-0.5)
        if self.is_mixed is None:
            places.copy_(made.view(places.shape))
        else:
            places[needed] = made


def calibrated(
    inputs: PlanInputs, start: int, stop: int, row: Array, is_mixed: Array | None, batch: Array
) -> Calibrated:
    """A sample around each row (T, A), with noise of the k classes nearest to it."""
    neighbour, of_classes = inputs.mixing.neighbours[row], inputs.mixing.of_classes
    drawn = below(inputs.draws.uniform("noise", start, stop, *neighbour.shape[1:]), of_classes.n_vectors)
    vector = neighbour * of_classes.n_vectors + drawn
    return Calibrated(row, is_mixed, neighbour, vector, of_classes)
