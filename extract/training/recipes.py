"""Named presets of Phase I's schedule."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """A preset. At each milestone, a share of the epochs, the learning rate falls tenfold."""

    epochs: int
    lr: float = 0.1
    schedule: str = "step"
    milestones: tuple[float, ...] = (0.5, 0.75)
    warmup_epochs: int = 0
    batch_size: int = 128
    weight_decay: float = 2e-4


RECIPES = {
    "short": Recipe(60),
    "cosine": Recipe(200, schedule="cosine", warmup_epochs=5, weight_decay=5e-4),
    "cifar-lt": Recipe(300, milestones=(0.5,)),  # paper, sec. 5.1: /10 every 150 of 300 epochs
    "inaturalist": Recipe(100, milestones=(0.3, 0.6, 0.9)),  # sec. 5.3: /10 every 30 of 100 epochs
}
