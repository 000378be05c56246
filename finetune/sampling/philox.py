"""The random numbers of a run, each at an address of its own: seed, kind of draw, iteration, place.

A counter-based generator makes any of them without the ones before, so a plan can be entered at any
iteration. docs/run-format.md is the contract: the same seed is to mean the same plan next year, so only the
generator's raw words are used, whose stream numpy guarantees, and never its distributions.
"""

from dataclasses import dataclass

import numpy as np

# What is drawn, each kind from a stream of its own, so that changing one leaves the others as they were.
# The numbers are part of the format of a run: new kinds go to the end.
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
}
WORDS = 4  # 64-bit words that one value of Philox's counter gives


@dataclass(frozen=True)
class CounterRNG:
    """Uniform numbers, addressed.

    Attributes:
        seed: of the run, below 2^64.
    """

    seed: int

    def uniform(self, kind: str, start: int, stop: int, *shape: int) -> np.ndarray:
        """Numbers in [0, 1), 53 bits each, of the iterations from `start` to before `stop`.

        Iteration t has the words from 4·b·t on of Philox4x64-10 with key (seed, kind), where b is the number
        of counter values that one iteration takes.

        Returns:
            (stop − start, *shape) float64.
        """
        size = int(np.prod(shape))
        blocks = -(-size // WORDS)
        key = np.array([self.seed, KINDS[kind]], np.uint64)
        words = np.random.Philox(key=key, counter=start * blocks).random_raw((stop - start) * blocks * WORDS)
        numbers = (words >> np.uint64(11)) * 2.0**-53
        return numbers.reshape(stop - start, blocks * WORDS)[:, :size].reshape(stop - start, *shape)


def below(uniform: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """Whole numbers 0 to n − 1, int64, from uniform ones; `n` at most 2^53."""
    return (uniform * n).astype(np.int64)
