"""Names of networks, told from others before anything heavy is imported."""

from importlib.util import find_spec
from pathlib import Path

from extract.config import NetworkConfig
from store.errors import UserError

FOR_SMALL_IMAGES = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet18-cifar", "resnet34-cifar")
TORCHVISION_ARCHITECTURES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
ARCHITECTURES = (*FOR_SMALL_IMAGES, *TORCHVISION_ARCHITECTURES)


def check_arch(arch: str) -> None:
    """Raise UserError for a name that neither we nor torchvision's source files have."""
    if arch in ARCHITECTURES or _is_torchvisions(arch):
        return
    raise unknown(arch)


def check_suited(config: NetworkConfig) -> None:
    """Raise UserError for an option that a network of that name does not take."""
    if config.arch in FOR_SMALL_IMAGES and config.weights is not None:
        raise UserError(f"--weights {config.weights}: {config.arch} has no pre-trained weights")
    if config.arch not in FOR_SMALL_IMAGES and config.width is not None:
        raise UserError(f"--width: {config.arch} is of fixed width; a CIFAR-stem network can be narrowed")


def unknown(arch: str) -> UserError:
    """What to say of a name that nobody has."""
    return UserError(f"--arch {arch}: unknown; expected one of {', '.join(ARCHITECTURES)}")


def _is_torchvisions(arch: str) -> bool:
    found = find_spec("torchvision")  # which imports nothing
    folders = (found.submodule_search_locations if found else None) or []
    files = [file for folder in folders for file in Path(folder, "models").glob("*.py")]
    return not files or any(f"\ndef {arch}(" in file.read_text(encoding="utf-8") for file in files)
