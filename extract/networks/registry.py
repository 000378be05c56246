"""Every network that can be trained, by name.

A new family is a file with a `FAMILY`, and its place in FAMILIES before torchvision's, which takes all names.
The command line refuses a name at once that `names.py` does not know, so its names go there.
"""

from extract.config import NetworkConfig
from extract.networks import cifar_resnet, torchvision_models
from extract.networks.parts import Family, Network
from store.options import check_bounds

FAMILIES = [cifar_resnet.FAMILY, torchvision_models.FAMILY]  # the first that has a name; the last takes all


def _family(arch: str) -> Family:
    return next(family for family in FAMILIES if family.has(arch))


def default_image_size(arch: str) -> int:
    """Pixels a side that an architecture is usually trained on: 32 behind a CIFAR stem, else 224."""
    return _family(arch).image_size


def build_network(config: NetworkConfig, n_classes: int) -> Network:
    """Make a network; new layers are drawn from torch's global generator.

    Raises:
        UserError: an unknown architecture, one whose head is not GAP + one FC, or weights that cannot be
            downloaded.
    """
    check_network(config)
    return _family(config.arch).build(config, n_classes)


def check_network(config: NetworkConfig) -> None:
    """Raise what `build_network` would, but for weights that cannot be downloaded, without building."""
    check_bounds(config)
    _family(config.arch).check(config)
