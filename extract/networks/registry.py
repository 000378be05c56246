"""Every network that can be trained, by name, and the errors for names and options that do not fit.

A new family is a file with a `FAMILY` and a line of FAMILIES. Nothing heavy is imported here, so that a wrong
name fails at once. A `config` is a NetworkConfig, which imports this module for `--help`.
"""

from typing import TYPE_CHECKING, Any

from extract.networks import cifar_resnet, torchvision_models
from extract.networks.family import Family
from store.errors import UserError
from store.options import check_bounds

if TYPE_CHECKING:
    from extract.networks.parts import Network

FAMILIES = [cifar_resnet.FAMILY, torchvision_models.FAMILY]
NOT_TAKEN = {  # by the option that a family does not take
    "weights": "--weights {value}: {arch} has no pre-trained weights; leave it out",
    "width": "--width {value}: {arch} has a fixed width; leave it out, or choose one of {takers}",
}


def architectures() -> list[str]:
    """The names that `--help` and errors list for `--arch`."""
    return [name for family in FAMILIES for name in family.names]


def check_arch(arch: str) -> None:
    """Raise UserError for an unknown architecture; torch is not imported."""
    _family(arch)


def check_named_network(config: Any) -> None:
    """Raise UserError for an unknown architecture or an option it does not take; torch is not imported."""
    family = _family(config.arch)
    if config.arch in family.names:  # for others the family decides first whether they can be used at all
        _check_options(config, family)


def check_network(config: Any) -> None:
    """Raise what `build_network` would, except for weights that cannot be downloaded; builds no network."""
    check_bounds(config)
    family = _family(config.arch)
    reason = None if config.arch in family.names else family.refusal(config.arch)
    if reason is not None:
        raise _unusable(config.arch, reason)
    _check_options(config, family)


def build_network(config: Any, n_classes: int) -> "Network":
    """Make a network; new layers are drawn from torch's global generator.

    Raises:
        UserError: an unknown architecture, one whose head is not GAP + one FC, an option that it does not
            take, or weights that cannot be downloaded.
    """
    check_network(config)
    return _family(config.arch).build(config, n_classes)


def default_image_size(arch: str) -> int:
    """The usual side of training images of an architecture, in pixels: 32 behind a CIFAR stem, else 224."""
    return _family(arch).image_size


def _family(arch: str) -> Family:
    for family in FAMILIES:
        if arch in family.names:
            return family
    for family in FAMILIES:
        if family.has_others(arch):
            return family
    raise _unusable(arch, "unknown")


def _unusable(arch: str, reason: str) -> UserError:
    return UserError(f"--arch {arch}: {reason}; expected one of {', '.join(architectures())}")


def _check_options(config: Any, family: Family) -> None:
    for option, message in NOT_TAKEN.items():
        value = getattr(config, option)
        if value is not None and option not in family.options:
            takers = [name for other in FAMILIES if option in other.options for name in other.names]
            raise UserError(message.format(value=value, arch=config.arch, takers=", ".join(takers)))
