"""Phase I's options, and the learning-rate schedules that go by a name."""

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from extract.dataset import DatasetConfig
from extract.networks import NetworkConfig, default_image_size
from store.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """A schedule and what goes with it. Milestones, where the rate falls tenfold, are shares of the epochs."""

    epochs: int
    lr: float = 0.1
    schedule: str = "step"
    milestones: tuple[float, ...] = ()
    warmup_epochs: int = 0
    batch_size: int = 128
    weight_decay: float = 2e-4


RECIPES = {
    "short": Recipe(60, milestones=(0.5, 0.75)),
    "cosine": Recipe(200, schedule="cosine", warmup_epochs=5, weight_decay=5e-4),
    "cifar-lt": Recipe(300, milestones=(0.5,)),  # paper, sec. 5.1: /10 every 150 of 300 epochs
    "inaturalist": Recipe(100, milestones=(0.3, 0.6, 0.9)),  # sec. 5.3: /10 every 30 of 100 epochs
}


@dataclass(frozen=True)
class TrainConfig:
    """Options of `train`, the network's and the data set's among them.

    None stands for what the recipe (or, for the image size, the architecture) says.
    """

    out: Annotated[str, "folder of the checkpoint and metrics"] = "runs/phase1"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    image_size: Annotated[int | None, "side of the images in pixels"] = None
    recipe: Annotated[
        Literal["short", "cosine", "cifar-lt", "inaturalist"], "preset of the options below it"
    ] = "short"
    epochs: Annotated[int | None, "passes over the training images"] = None
    batch_size: Annotated[int | None, "images a step"] = None
    lr: Annotated[float | None, "initial learning rate"] = None
    schedule: Annotated[Literal["step", "cosine"] | None, "course of the learning rate"] = None
    warmup_epochs: Annotated[int | None, "epochs of linear warm-up"] = None
    weight_decay: Annotated[float | None, "L2 penalty on all weights"] = None
    momentum: Annotated[float, "of SGD"] = 0.9
    precision: Annotated[Literal["fp32", "bf16"], "bf16 computes the features under autocast"] = (
        "fp32"
    )
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    workers: Annotated[int, "processes that decode large images"] = 2
    eval_every: Annotated[int, "epochs between accuracies on val (or test)"] = 10
    seed: Annotated[int, "of the initial weights, the order and the augmentation"] = 0
    resume: Annotated[bool, "go on from the checkpoint in --out, with its options"] = False
    overwrite: Annotated[bool, "replace an earlier run in --out"] = False

    def resolved(self) -> "TrainConfig":
        """The same with values in place of None.

        Raises:
            UserError: a value out of its range.
        """
        recipe = RECIPES[self.recipe]
        names = ("epochs", "batch_size", "lr", "schedule", "warmup_epochs", "weight_decay")
        values = {n: getattr(recipe if getattr(self, n) is None else self, n) for n in names}
        size = default_image_size(self.network.arch) if self.image_size is None else self.image_size
        config = replace(self, image_size=size, **values)
        lowest = {
            "epochs": 1,
            "batch_size": 1,
            "image_size": 8,
            "eval_every": 1,
            "workers": 0,
            "seed": 0,
        }
        lowest |= {"lr": 0, "warmup_epochs": 0, "weight_decay": 0, "momentum": 0}
        for name, least in lowest.items():
            value = getattr(config, name)
            if not least <= value < math.inf:
                raise UserError(f"--{name.replace('_', '-')} {value}: must be {least} or more")
        return config


def learning_rate(config: TrainConfig, epoch: float) -> float:
    """The rate at one moment of a resolved config; `epoch` counts finished epochs and their fractions."""
    if epoch < config.warmup_epochs:
        return config.lr * epoch / config.warmup_epochs
    if config.schedule == "cosine":
        share = (epoch - config.warmup_epochs) / max(1, config.epochs - config.warmup_epochs)
        return config.lr * (1 + math.cos(math.pi * share)) / 2
    milestones = RECIPES[config.recipe].milestones
    return config.lr * 0.1 ** sum(epoch >= milestone * config.epochs for milestone in milestones)
