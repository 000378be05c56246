"""Successive halving by seeds: every configuration with the first seed, the best third with the next, …

In Karnin et al. 2013 a round takes longer trainings. Here it takes another seed: heads are cheap, and their
spread over seeds is what is left to know.
"""

from collections.abc import Mapping, Sequence

import numpy as np

KEPT = 3  # one configuration in so many goes on to the next seed


def n_kept(n: int) -> int:
    """Configurations of n that go on."""
    return -(-n // KEPT)


def n_trained(n: int, n_seeds: int) -> int:
    """Heads of an entry with n configurations, in all rounds."""
    total = 0
    for _ in range(n_seeds):
        total, n = total + n, n_kept(n)
    return total


def going_on(configurations: Sequence[str], scores: Mapping[str, Sequence[float]]) -> list[str]:
    """The best third, at least one, by mean score; of equals the earlier. None with a head that diverged.

    Args:
        configurations: of one entry, in their order.
        scores: of each, one for each head so far; NaN for a head that diverged.
    """
    mean = {name: round(float(np.mean(scores[name])), 9) for name in configurations}  # equal are equal
    whole = [name for name in configurations if np.isfinite(mean[name])]
    return sorted(whole, key=lambda name: -mean[name])[: n_kept(len(configurations))]
