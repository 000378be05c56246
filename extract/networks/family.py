"""What the program knows of a family of networks before it imports torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extract.networks.parts import Network


@dataclass(frozen=True)
class Preparation:
    """How the authors of a network prepare images in evaluation.

    Attributes:
        image_size: side of the square that the network sees, in pixels.
        resize: of the image's shorter side before the central crop, in pixels; None for 256 of 224.
        mean, std: of each channel, in units of the [0, 1] range; None for ImageNet's.
        interpolation: of resizing, by Pillow's name.
        said_by: what the network says it in itself, in words; empty if its makers' tables do.
    """

    image_size: int
    resize: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str = "bilinear"
    said_by: str = ""


@dataclass(frozen=True)
class Family:
    """Networks that are built alike.

    Attributes:
        names: its architectures, as `--help` and errors list them. All tensors of these are in their state
            dict, so that they can be made on the meta device and loaded.
        build: the network of a NetworkConfig for K classes and images of so many pixels a side, new layers
            drawn from torch's global generator. It imports torch itself, and raises UserError for weights
            that cannot be downloaded.
        preparation: how images reach the network of a NetworkConfig.
        options: the fields of NetworkConfig that it takes and other families may not.
        has_others: whether a name that is not listed may be one of its architectures; called before torch is
            imported.
        refusal: why a NetworkConfig whose name `has_others` let through cannot be used, None if it can, as
            far as that shows without building; may import torch.
        others: how other names are written, in words.
    """

    names: tuple[str, ...]
    build: Callable[[Any, int, int], "Network"]
    preparation: Callable[[Any], Preparation]
    options: tuple[str, ...] = ()
    has_others: Callable[[str], bool] = lambda arch: False
    refusal: Callable[[Any], str | None] = lambda config: None
    others: str | None = None
