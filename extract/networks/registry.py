"""Every network that can be trained, by name, and the errors for names and options that do not fit.

A new family is a file with a `FAMILY` and a line of FAMILIES. Nothing heavy is imported here, so that a wrong
name fails at once. A `config` is a NetworkConfig, which imports this module for `--help`.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.networks import cifar_resnet, factory, timm_models, torchvision_models
from extract.networks.family import Family, Preparation
from store.errors import UserError
from store.options import check_bounds

if TYPE_CHECKING:
    from extract.networks.parts import Network

FAMILIES = [cifar_resnet.FAMILY, timm_models.FAMILY, factory.FAMILY, torchvision_models.FAMILY]
FILES = {".pt", ".pth", ".bin", ".ckpt", ".tar", ".pkl", ".safetensors", ".json"}  # of weights
NOT_TAKEN = {  # by the option that a family does not take
    "weights": "--weights {value}: {arch} has no pre-trained weights; leave it out, or name a file",
    "arch_option": "--arch-option {value}: {arch} takes no arguments; leave it out",
    "width": "--width {value}: {arch} has a fixed width; leave it out, or choose one of {takers}",
}


def is_weights_file(weights: str | None) -> bool:
    """Whether `--weights` names a file, and not weights that a library downloads."""
    if weights in (None, "DEFAULT"):
        return False
    return os.sep in weights or Path(weights).suffix in FILES or Path(weights).is_file()


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
    reason = None if config.arch in family.names else family.refusal(config)
    if reason is not None:
        raise _unusable(config.arch, reason)
    _check_options(config, family)
    check_weights(config)


def check_weights(config: Any) -> None:
    """Raise UserError for a file of weights that is not there, or --ema without one."""
    if is_weights_file(config.weights):
        if "://" in config.weights:
            raise UserError(f"--weights {config.weights}: is an address; download it, and name the file")
        if not Path(config.weights).is_file():
            raise UserError(
                f"--weights {config.weights}: no such file; name one, or weights of the library (DEFAULT)"
            )
    elif config.ema:
        raise UserError("--ema: chooses among the weights in a file; name it as --weights")


def build_network(config: Any, n_classes: int, image_size: int | None = None) -> "Network":
    """Make a network; new layers are drawn from torch's global generator.

    Args:
        config: a NetworkConfig.
        n_classes: K.
        image_size: side of its images in pixels, by default the usual one.

    Raises:
        UserError: an unknown architecture, one whose head is not GAP + one FC, an option that it does not
            take, or weights that cannot be downloaded, read, or loaded into it.
    """
    check_network(config)
    family, from_file = _family(config.arch), is_weights_file(config.weights)
    named = replace(config, weights=None) if from_file else config
    network = family.build(named, n_classes, image_size or family.preparation(config).image_size)
    if from_file:
        from extract.networks.weights_file import load_weights

        load_weights(network, Path(config.weights), config.arch, config.ema)
    return network


def network_to_load(config: Any, n_classes: int, image_size: int | None = None) -> "Network":
    """A network whose weights come from a file: none are drawn, or downloaded.

    Raises:
        UserError: as of `build_network`.
    """
    import torch

    family, bare = _family(config.arch), replace(config, weights=None, ema=False)
    # Networks of other makes may have tensors that no state dict holds, so they are made with their values.
    listed = config.arch in family.names
    with torch.random.fork_rng(devices=[]), torch.device("meta" if listed else "cpu"):
        if listed:
            return build_network(bare, n_classes, image_size)
        try:
            _check_options(bare, family)
            return family.build(bare, n_classes, image_size or family.preparation(bare).image_size)
        except Exception:  # it could be used once; only now is it worth a search for what tells why not
            check_network(bare)
            raise


def check_loads_again(network: "Network", config: Any, n_classes: int, image_size: int) -> "Network":
    """Raise UserError for a network that would not be the same once its state dict is loaded.

    Values that it draws besides (in an attribute, or a buffer that is not saved) would be others then.

    Args:
        network: as it was built, on the CPU.
        config: its NetworkConfig.
        n_classes: K.
        image_size: side of its images in pixels.

    Returns:
        The one that was made again.
    """
    import torch

    loaded = network_to_load(config, n_classes, image_size)
    images = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loaded.load_state_dict(network.state_dict(), strict=False)
        logits, again = network.eval()(images), loaded.eval()(images)
    if not logits.isfinite().all():
        whose = f"--arch {config.arch}:"
        if is_weights_file(config.weights):
            whose = f"{config.weights}: {config.arch} with its weights"
        raise UserError(f"{whose} gives NaN or infinite logits, so the weights are damaged; use others")
    same = torch.allclose(again, logits, rtol=1e-4, atol=1e-4 * float(logits.abs().max()))
    if not same or loaded.state_dict().keys() != network.state_dict().keys():
        raise UserError(
            f"--arch {config.arch}: is another network when it is made again and weights are loaded; keep "
            "all values that it draws or changes in parameters, or in buffers of its state dict"
        )
    return loaded


def check_named(arch: str, named: str | None, where: Any) -> None:
    """Raise UserError where a file names code of the user's that the user has not named; nothing runs before.

    Args:
        arch: the architecture that the file names.
        named: the one that the user named; None if there is none.
        where: the file.
    """
    if named is not None and named != arch:
        raise UserError(f"--arch {named}: {where} has a network of {arch}; leave --arch out, or name that")
    if named is None and factory.is_factory(arch):
        raise UserError(
            f"{where}: its network is made by {arch}, which is code and runs only when you name it yourself: "
            f"pass --arch {arch} if you trust it"
        )


def preparation(config: Any) -> Preparation:
    """How images reach a network: 32 pixels a side behind a CIFAR stem, else as its authors prepare them."""
    return _family(config.arch).preparation(config)


def _family(arch: str) -> Family:
    for family in FAMILIES:
        if arch in family.names:
            return family
    for family in FAMILIES:
        if family.has_others(arch):
            return family
    raise _unusable(arch, "unknown")


def _unusable(arch: str, reason: str) -> UserError:
    others = " or ".join(family.others for family in FAMILIES if family.others is not None)
    return UserError(f"--arch {arch}: {reason}; expected one of {', '.join(architectures())}; or {others}")


def _check_options(config: Any, family: Family) -> None:
    for option, message in NOT_TAKEN.items():
        value = getattr(config, option)
        if option == "weights" and is_weights_file(value):
            continue
        if value not in (None, ()) and option not in family.options:
            takers = [name for other in FAMILIES if option in other.options for name in other.names]
            value = value if isinstance(value, int | str) else " ".join(value)
            raise UserError(message.format(value=value, arch=config.arch, takers=", ".join(takers)))
