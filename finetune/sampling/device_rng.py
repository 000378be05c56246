"""The random numbers of a run, made on the device where the features live.

The same words as those of numpy's generator (see `philox`), out of 64-bit integer operations of torch: int64
wraps like uint64, with the same bits. Philox4x64-10: Salmon et al., "Parallel random numbers: as easy as 1,
2, 3", 2011.
"""

from dataclasses import dataclass
from math import prod

import torch

from finetune.sampling.philox import KINDS, WORDS

MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
ROUNDS = 10
LOW = 2**32 - 1
MANTISSA = 53  # bits of float64


@dataclass(frozen=True)
class DeviceRNG:
    """Uniform random numbers by address: those of `CounterRNG`, to the bit, as tensors.

    Attributes:
        seed: seed of the run, below 2^64.
        device: where they are made.
    """

    seed: int
    device: torch.device

    def uniform(self, kind: str, start: int, stop: int, *shape: int) -> torch.Tensor:
        """Numbers in [0, 1), 53 bits each, for iterations `start` to `stop` (exclusive).

        Returns:
            (stop − start, *shape) float64 on the device.
        """
        size = prod(shape)
        blocks = -(-size // WORDS)
        first = torch.arange(start * blocks + 1, stop * blocks + 1, dtype=torch.int64, device=self.device)
        words = torch.stack(_philox(first, (self.seed, KINDS[kind])), dim=-1)
        numbers = _shifted(words, 64 - MANTISSA).double().mul_(2.0**-MANTISSA)
        return numbers.reshape(stop - start, blocks * WORDS)[:, :size].reshape(stop - start, *shape)


def _philox(counter: torch.Tensor, key: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """The four words of each value of a counter (n,) below 2^64, int64 with the bits of uint64."""
    zero = torch.zeros((), dtype=torch.int64, device=counter.device)
    words = counter, zero, zero, zero
    for turn in range(ROUNDS):
        low_0, high_0 = _product(words[0], MULTIPLIERS[0])
        low_1, high_1 = _product(words[2], MULTIPLIERS[1])
        key_0, key_1 = (_signed(part + turn * step) for part, step in zip(key, KEY_STEPS, strict=True))
        words = high_1 ^ words[1] ^ key_0, low_1, high_0 ^ words[3] ^ key_1, low_0
    return words


def _product(words: torch.Tensor, factor: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lower and upper 64 bits of words times a factor, as on paper with digits of 32 bits."""
    low, high = words & LOW, _shifted(words, 32)
    factor_low, factor_high = factor & LOW, factor >> 32
    carried = high * factor_low + _shifted(low * factor_low, 32)
    middle = low * factor_high + (carried & LOW)
    return words * _signed(factor), high * factor_high + _shifted(carried, 32) + _shifted(middle, 32)


def _shifted(words: torch.Tensor, n_bits: int) -> torch.Tensor:
    """Shifted right as unsigned numbers; torch's own shift repeats the sign."""
    return (words >> n_bits) & (2 ** (64 - n_bits) - 1)


def _signed(number: int) -> int:
    """The int64 with the bits of a number modulo 2^64."""
    number %= 2**64
    return number - 2**64 if number >= 2**63 else number
