"""Random numbers of a run, addressed by seed, kind of draw, iteration and index.

The generator is counter-based: any number can be made without the ones before it, so a plan can start at
any iteration. docs/run-format.md is the contract. A seed must give the same plan in every version, so only
the generator's raw words are used, whose stream numpy guarantees, never its distributions.
"""

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace

from finetune.sampling.arrays import Array

# Kinds of draws. Each has its own stream, so that changing one leaves the others as they were. The numbers
# are part of the run format: add new kinds at the end.
KINDS = {
    "any row": 0,
    "tail": 1,
    "row of tail class": 2,
    "head row": 3,
    "order of confusing classes": 4,
    "donor row": 5,
    "gamma": 6,
    "vector": 7,
    "class": 8,
    "row of class": 9,
    "fresh weight": 10,
    "configuration": 11,
    "fold": 12,
    "partner row": 13,
    "order of channels": 14,
    "partner place": 15,
    "mixup share": 16,
    "noise": 17,
    "normal": 18,
    "filled": 19,
    "order of positions": 20,
    "order of head classes": 21,
    "episode class": 22,
    "episode row": 23,
}
WORDS = 4  # 64-bit words per value of Philox's counter


@dataclass(frozen=True)
class CounterRNG:
    """Uniform random numbers by address.

    Attributes:
        seed: seed of the run, below 2^64.
    """

    seed: int

    def uniform(self, kind: str, start: int, stop: int, *shape: int) -> np.ndarray:
        """Numbers in [0, 1), 53 bits each, for iterations `start` to `stop` (exclusive).

        Iteration t uses the words of Philox4x64-10 with key (seed, kind) from 4·b·t on, where b is the number
        of counter values per iteration.

        Returns:
            (stop − start, *shape) float64.
        """
        size = int(np.prod(shape))
        blocks = -(-size // WORDS)
        key = np.array([self.seed, KINDS[kind]], np.uint64)
        words = np.random.Philox(key=key, counter=start * blocks).random_raw((stop - start) * blocks * WORDS)
        numbers = (words >> np.uint64(11)) * 2.0**-53
        return numbers.reshape(stop - start, blocks * WORDS)[:, :size].reshape(stop - start, *shape)


def normals(uniform: np.ndarray) -> np.ndarray:
    """Standard normal numbers, one for each uniform number in [0, 1): the inverse of their distribution."""
    from scipy.special import ndtri  # not while the command line reads the methods' names

    return ndtri((uniform + 2.0**-54).clip(max=1 - 2.0**-53))  # never 0 or 1, which have none


def below(uniform: Array, n: Array | int) -> Array:
    """Integers 0 to n − 1, int64, from uniform numbers in [0, 1); `n` is at most 2^53."""
    xp = array_namespace(uniform)
    return xp.astype(uniform * n, xp.int64)
