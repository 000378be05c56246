"""torchvision's networks: ResNets part by part, others taken apart by what flows through them."""

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.networks.family import Family, Preparation
from store.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from extract.networks.parts import Network

NAMES = ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
WITHOUT_WEIGHTS = "resnet10"  # ImageNet-LT's, always from scratch (Liu et al. 2019); torchvision has none
REMIX_INPUT = ("googlenet", "inception_v3")  # with pre-trained weights, their first step scales channels
IMAGE_SIZE = 224  # of ResNets, and of networks without pre-trained weights
_USABLE: set[tuple] = set()  # names and sizes that passed: one command asks several times


def _in_torchvision(arch: str) -> bool:
    """Whether torchvision's source files define a function of that name."""
    found = find_spec("torchvision")  # which imports nothing
    folders = (found.submodule_search_locations if found else None) or []
    files = [file for folder in folders for file in Path(folder, "models").glob("*.py")]
    return not files or any(f"\ndef {arch}(" in file.read_text(encoding="utf-8") for file in files)


def _refusal(config: Any) -> str | None:
    import torch
    import torchvision

    from extract.networks.found import refusal

    if config.arch not in torchvision.models.list_models(module=torchvision.models):
        return "unknown"
    asked = (config.arch, _preparation(config).image_size)
    if asked in _USABLE:
        return None
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # GoogLeNet warns of its weights
            model = torchvision.models.get_model(config.arch, **_as_pretrained(config.arch))
    except NotImplementedError:  # RegNet reads its widths off tensors, which meta tensors refuse
        return None
    reason = refusal(model, asked[1])
    if reason is None:
        _USABLE.add(asked)
    return reason


def _preparation(config: Any) -> Preparation:
    from torchvision.models import get_model_weights

    known = {} if config.arch == WITHOUT_WEIGHTS else get_model_weights(config.arch).__members__
    weights = known.get(config.weights or "DEFAULT", known.get("DEFAULT"))
    if weights is None or (config.arch in NAMES and config.weights is None):
        return Preparation(IMAGE_SIZE)
    own = weights.transforms()
    interpolation = own.interpolation.value
    return Preparation(own.crop_size[0], own.resize_size[0], tuple(own.mean), tuple(own.std), interpolation)


def _build(config: Any, n_classes: int, image_size: int) -> "Network":
    from extract.networks.found import with_new_classifier
    from extract.networks.torchvision_resnet import TorchvisionResNet

    model = _model(config)
    if config.arch in NAMES:
        network = TorchvisionResNet(model, n_classes)
    else:
        network = with_new_classifier(model, image_size, n_classes, config.arch)
    network.is_known = True
    return network


def _as_pretrained(arch: str) -> dict[str, bool]:
    """As torchvision makes these with weights, so that weights do not change what a network is.

    Without auxiliary heads, and with a first step that takes images normalised as ImageNet's are.
    """
    return {"aux_logits": False, "transform_input": True} if arch in REMIX_INPUT else {}


def _model(config: Any) -> "nn.Module":
    import torchvision

    if config.arch == WITHOUT_WEIGHTS:
        if config.weights is not None:
            raise UserError(
                f"--weights {config.weights}: {config.arch} has no pre-trained weights; leave it out"
            )
        return torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
    try:
        with warnings.catch_warnings(action="ignore"):
            heads = _as_pretrained(config.arch)
            return torchvision.models.get_model(config.arch, weights=config.weights, **heads)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"--weights {config.weights}: cannot be loaded for {config.arch} ({error}); "
            "expected DEFAULT or a name from torchvision, and a network connection at first use"
        ) from error


FAMILY = Family(
    NAMES, _build, _preparation, ("weights",), _in_torchvision, _refusal, "another network of torchvision"
)
