"""Options of Phase I's optimiser."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OptimConfig:
    """How Phase I turns gradients into weights, besides what recipes set."""
