"""Recipes: every hyper-parameter of Phase I's schedule, each with its source.

Momentum is 0.9 in all of them, and the loss cross-entropy. Images are cropped and mirrored at random.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

Options = TypeVar("Options")


@dataclass(frozen=True)
class OfSide:
    """A length in pixels that goes with the images' side.

    Attributes:
        share: of the side.
    """

    share: float


@dataclass(frozen=True)
class Recipe:
    """A preset. At each milestone, a share of the epochs, the learning rate falls tenfold.

    Attributes:
        options: of loss, augmentation and optimiser, by name. Lengths are OfSide.
    """

    epochs: int
    lr: float = 0.1
    schedule: str = "step"
    milestones: tuple[float, ...] = (0.5, 0.75)
    warmup_epochs: int = 0
    batch_size: int = 128
    weight_decay: float = 2e-4
    options: Mapping[str, Any] = field(default_factory=dict)

    def fill(self, config: Options, image_size: int | None, but: tuple[str, ...] = ()) -> Options:
        """A config with this recipe's options where it has None.

        Args:
            config: one of the nested ones of TrainConfig.
            image_size: side of the images in pixels; None leaves lengths as they are.
            but: names of options that stay as they are.
        """
        missing = {
            name: value
            for name, value in self.options.items()
            if name not in but and hasattr(config, name) and getattr(config, name) is None
        }
        for name, value in missing.items():
            if isinstance(value, OfSide):
                missing[name] = None if image_size is None else round(value.share * image_size)
        return replace(config, **missing)

    def told(self) -> str:
        """Its values in a few words."""
        falls = [f"{milestone * self.epochs:g}" for milestone in self.milestones]
        how = f"divided by 10 after {', '.join(falls)}" if self.schedule == "step" else self.schedule
        warm = f", warm-up {self.warmup_epochs}" if self.warmup_epochs else ""
        own = "".join(f", {name.replace('_', '-')} {_word(value)}" for name, value in self.options.items())
        return (
            f"{self.epochs} epochs, lr {self.lr:g} {how}{warm}, batch {self.batch_size}, "
            f"decay {self.weight_decay:g}{own}"
        )


def _word(value: Any) -> str:
    if isinstance(value, OfSide):
        return f"{value.share:.0%} of the images' side"
    if isinstance(value, str):
        return value
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value:g}"


# Of what was tried on long-tailed CIFAR-10, the best on images that no training saw (docs/results.md).
STRONG = {"lr_batch_size": 128, "nesterov": True, "augment": "autoaugment", "cutout": OfSide(0.5)}
# Published accuracies in %, of Phase I alone; the paper's Phase II in brackets (docs/training.md has more).
RECIPES = {
    # Ours, for trying things out on a CPU.
    "short": Recipe(60),
    # The schedule of Bag of Tricks and others for long tails: 200 epochs, warm-up of 5.
    "cosine": Recipe(200, schedule="cosine", warmup_epochs=5, weight_decay=5e-4),
    # Paper, sec. 5.1, Tables 1 and 2: /10 every 150 of 300 epochs. The paper leaves Phase I's batch size and
    # weight decay open. ResNet-18, CIFAR-10-LT, IM 100: 75.16 (80.57).
    "cifar-lt": Recipe(300, milestones=(0.5,)),
    # Paper, sec. 5.2, Table 3, which has no schedule: that of its reference [29] (OLTR), config/ImageNet_LT/
    # stage_1.py. ResNet-10: 20.9 (35.2).
    "imagenet-lt": Recipe(
        30, milestones=(1 / 3, 2 / 3), batch_size=256, weight_decay=5e-4, options={"lr_batch_size": 256}
    ),
    # The same, config/Places_LT/stage_1.py: the backbone is pre-trained. ResNet-152: 27.2 (36.4).
    "places-lt": Recipe(
        30,
        lr=0.001,
        milestones=(1 / 3, 2 / 3),
        weight_decay=5e-4,
        options={"lr_batch_size": 128, "classifier_lr": 0.1},
    ),
    # Paper, sec. 5.3, Table 4: /10 every 30 of 100 epochs; batch size and weight decay are left open.
    # ResNet-50: 60.50 (61.96) for 2017, 62.27 (65.91) for 2018.
    "inaturalist": Recipe(100, milestones=(0.3, 0.6, 0.9)),
    # Ours, for features worth caching: what published recipes of long-tailed CIFAR agree on.
    "strong": Recipe(
        100,
        schedule="cosine",
        warmup_epochs=5,
        weight_decay=5e-4,
        options=STRONG,
    ),
    "strong-200": Recipe(
        200,
        schedule="cosine",
        warmup_epochs=5,
        weight_decay=5e-4,
        options=STRONG,
    ),
}
RECIPES_TOLD = "; ".join(f"{name}: {recipe.told()}" for name, recipe in RECIPES.items())
