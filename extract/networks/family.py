"""What the program knows of a family of networks before it imports torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extract.networks.parts import Network


@dataclass(frozen=True)
class Family:
    """Networks that are built alike.

    Attributes:
        names: its architectures, as `--help` and errors list them.
        build: the network of a NetworkConfig for K classes, new layers drawn from torch's global generator.
            It imports torch itself, and raises UserError for weights that cannot be downloaded.
        image_size: the usual side of its training images, in pixels.
        options: the fields of NetworkConfig that it takes and other families may not.
        has_others: whether a name that is not listed may be one of its architectures; called before torch is
            imported.
        refusal: why a name that `has_others` let through cannot be used, None if it can; may import torch.
    """

    names: tuple[str, ...]
    build: Callable[[Any, int], "Network"]
    image_size: int
    options: tuple[str, ...] = ()
    has_others: Callable[[str], bool] = lambda arch: False
    refusal: Callable[[str], str | None] = lambda arch: None
