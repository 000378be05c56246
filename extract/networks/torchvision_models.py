"""torchvision's networks that end in global average pooling and one FC layer."""

import warnings
from collections import OrderedDict

import torch
import torchvision
from torch import nn

from extract.config import NetworkConfig
from extract.networks.names import ARCHITECTURES, check_suited, unknown
from extract.networks.parts import Family, Network
from store.errors import UserError


def _check(config: NetworkConfig) -> None:
    arch = config.arch
    if arch not in torchvision.models.list_models(module=torchvision.models):
        raise unknown(arch)
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # GoogLeNet's, of its weights
            check_head(torchvision.models.get_model(arch), arch)
    except NotImplementedError as error:  # RegNet reads its widths off tensors, which meta tensors refuse
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"--arch {arch}: refused, its layout is unknown; expected one of {known}") from error
    check_suited(config)


def _build(config: NetworkConfig, n_classes: int) -> Network:
    try:
        model = torchvision.models.get_model(config.arch, weights=config.weights)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"--weights {config.weights}: cannot be had for {config.arch} ({error}); "
            "expected DEFAULT or a name from torchvision, and a network connection at first use"
        ) from error
    # Everything up to torchvision's own pooling is the feature sub-network.
    parts = OrderedDict(item for item in model.named_children() if item[0] not in ("avgpool", "fc"))
    return Network(nn.Sequential(parts), nn.Linear(model.fc.in_features, n_classes))


def check_head(model: nn.Module, arch: str) -> None:
    """Raise UserError, naming the reason, unless the head is global average pooling and one FC layer."""
    if isinstance(model, torchvision.models.ResNet):
        return
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        reason = "it pools by attention, so it has no feature map under its classifier"
    elif len(linear) != 1:
        found = f"{len(linear)} FC layers ({', '.join(linear[:3])}…)" if linear else "no FC layer"
        reason = f"it has {found}"
    else:
        reason = f"layers stand between its pooling and its FC layer {linear[0]!r}, or its layout is unknown"
    raise UserError(
        f"--arch {arch}: refused, since class activation maps need global average pooling followed by "
        f"one FC layer, and {reason}; expected one of {', '.join(ARCHITECTURES)}"
    )


FAMILY = Family(lambda name: True, _check, _build, image_size=224)
