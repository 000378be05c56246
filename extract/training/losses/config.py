"""Options of Phase I's loss."""

from dataclasses import dataclass
from typing import Annotated, Literal

from store.options import Option


@dataclass(frozen=True)
class LossConfig:
    """What Phase I minimises."""

    loss: Annotated[Literal["ce"], Option("loss of Phase I: cross-entropy (ce)", "method")] = "ce"
