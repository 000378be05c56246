"""The demo: configs of the commands that it runs."""

from dataclasses import dataclass
from typing import Annotated

from extract.config import DatasetConfig, ExtractConfig, NetworkConfig, TrainConfig
from extract.options import Device
from finetune.config import FinetuneConfig
from store.options import Option

SEEDS = (0, 1, 2)
METHODS = ("fsa", "no-aug")


@dataclass(frozen=True)
class DemoConfig:
    """Options of `demo`."""

    out: Annotated[str, Option("folder for everything that the demo writes", "files")] = "runs/demo"
    device: Device = "auto"


@dataclass(frozen=True)
class DemoPhases:
    """The commands of one seed, in order."""

    train: TrainConfig
    extract: ExtractConfig
    finetune: list[FinetuneConfig]


def plan_demo(out: str, seed: int, device: str) -> DemoPhases:
    """Handwritten digits at imbalance 20 (144 zeros down to 7 nines) and a ResNet-18 of width 16."""
    folder = f"{out}/seed{seed}"
    train = TrainConfig(
        out=f"{folder}/phase1",
        network=NetworkConfig("resnet18-cifar", width=16),
        dataset=DatasetConfig("digits", imbalance_factor=20),
        epochs=20,
        batch_size=64,
        precision="bf16",
        device=device,
        seed=seed,
        overwrite=True,
    )
    store = f"{folder}/feats.zarr"
    extract = ExtractConfig(f"{train.out}/checkpoint.pt", store, device=device, overwrite=True)
    finetune = [
        FinetuneConfig(store, f"{folder}/{m}", method=m, seed=seed, device=device, overwrite=True)
        for m in METHODS
    ]
    return DemoPhases(train, extract, finetune)
