"""Options that say what the network is."""

from dataclasses import dataclass
from typing import Annotated

from extract.networks.registry import architectures
from store.options import Option


@dataclass(frozen=True)
class NetworkConfig:
    """Which network is used. It is saved in every checkpoint and store."""

    arch: Annotated[
        str,
        Option(
            "network architecture (for small images: resnet20 to 56 and the -cifar ones)",
            "network",
            names=architectures,
            others="timm:NAME, package.module:function, others of torchvision",
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
        Option("pre-trained weights of torchvision or timm, for example DEFAULT", "network", "random ones"),
    ] = None
    arch_option: Annotated[
        tuple[str, ...],
        Option("argument of timm's or your own network, as name=value; may be repeated", "network"),
    ] = ()
