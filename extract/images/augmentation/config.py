"""Options of Phase I's augmentation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AugmentConfig:
    """How training images are changed at random, besides crops and mirror images."""
