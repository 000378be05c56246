"""torchvision's networks that end in global average pooling and one FC layer."""

import warnings
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.networks.family import Family
from store.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from extract.networks.parts import Network

NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


def _in_torchvision(arch: str) -> bool:
    """Whether torchvision's source files define a function of that name."""
    found = find_spec("torchvision")  # which imports nothing
    folders = (found.submodule_search_locations if found else None) or []
    files = [file for folder in folders for file in Path(folder, "models").glob("*.py")]
    return not files or any(f"\ndef {arch}(" in file.read_text(encoding="utf-8") for file in files)


def _refusal(arch: str) -> str | None:
    import torch
    import torchvision

    if arch not in torchvision.models.list_models(module=torchvision.models):
        return "unknown"
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # GoogLeNet warns of its weights
            return _head_refusal(torchvision.models.get_model(arch))
    except NotImplementedError:  # RegNet reads its widths off tensors, which meta tensors refuse
        return "refused, its layout is unknown"


def _head_refusal(model: "nn.Module") -> str | None:
    """Why the head is not global average pooling and one FC layer, None if it is."""
    import torchvision
    from torch import nn

    if isinstance(model, torchvision.models.ResNet):
        return None
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        reason = "it pools by attention, so it has no feature map under its classifier"
    elif len(linear) != 1:
        found = f"{len(linear)} FC layers ({', '.join(linear[:3])}…)" if linear else "no FC layer"
        reason = f"it has {found}"
    else:
        reason = f"layers stand between its pooling and its FC layer {linear[0]!r}, or its layout is unknown"
    return (
        "refused, since class activation maps need global average pooling followed by one FC layer, and "
        + reason
    )


def _build(config: Any, n_classes: int) -> "Network":
    import torchvision
    from torch import nn

    from extract.networks.parts import Network

    try:
        model = torchvision.models.get_model(config.arch, weights=config.weights)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"--weights {config.weights}: cannot be loaded for {config.arch} ({error}); "
            "expected DEFAULT or a name from torchvision, and a network connection at first use"
        ) from error
    # Everything up to torchvision's own pooling is the feature sub-network.
    parts = OrderedDict(item for item in model.named_children() if item[0] not in ("avgpool", "fc"))
    return Network(nn.Sequential(parts), nn.Linear(model.fc.in_features, n_classes))


FAMILY = Family(NAMES, _build, 224, ("weights",), _in_torchvision, _refusal)
