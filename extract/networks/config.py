"""Options that say what the network is."""

from dataclasses import dataclass
from typing import Annotated

from extract.networks.registry import architectures
from store.options import Option


@dataclass(frozen=True)
class NetworkConfig:
    """Which network is used. It is saved in every checkpoint and store.

    One field is no option: `weights_digest`, of the file that training began with, once it was read.
    """

    arch: Annotated[
        str,
        Option(
            "network architecture (for small images: resnet8, resnet20 to 56 and the -cifar ones)",
            "network",
            names=architectures,
            others="timm:NAME, package.module:function or another network of torchvision",
        ),
    ] = "resnet32"
    width: Annotated[
        int | None,
        Option(
            "channels of the first stage, in networks for small images", "network", "the network's", least=1
        ),
    ] = None
    weights: Annotated[
        str | None,
        Option(
            "pre-trained weights: DEFAULT for those of torchvision or timm, or a file (.pth, .safetensors)",
            "network",
            "random ones",
        ),
    ] = None
    ema: Annotated[
        bool, Option("take averaged (EMA) weights, where the file that --weights names has both", "network")
    ] = False
    arch_option: Annotated[
        tuple[str, ...],
        Option("argument of timm's or your own network, as name=value; may be repeated", "network"),
    ] = ()
    weights_digest: str | None = None
