"""timm's networks, as `timm:NAME`, taken apart by what flows through them."""

import math
import warnings
from difflib import get_close_matches
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from extract.networks.arguments import arguments
from extract.networks.family import Family, Preparation
from store.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from extract.networks.parts import Network

PREFIX = "timm:"
_USABLE: set[tuple] = set()  # names, arguments and sizes that passed: one command asks several times


def _has(arch: str) -> bool:
    return arch.startswith(PREFIX)


def _name(arch: str) -> str:
    return arch.removeprefix(PREFIX)


def _refusal(config: Any) -> str | None:
    import torch

    from extract.networks.found import refusal

    if find_spec("timm") is None:
        return "needs `pip install timm`"
    import timm

    name = _name(config.arch)
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3)
        return "unknown to timm" + (f" (near it are {', '.join(near)})" if near else "")
    try:
        size = _preparation(config).image_size
    except RuntimeError as error:  # of a tag that there is not
        return _reason(error)
    asked = (name, tuple(config.arch_option), size)
    if asked in _USABLE:
        return None
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            model = timm.create_model(name, **{"num_classes": 2} | arguments(config))
    except (NotImplementedError, RuntimeError):  # it reads numbers off tensors, which meta tensors refuse
        return None
    except Exception as error:  # arguments go to code that may fail in any way
        return f"cannot be made ({_reason(error)})"
    reason = refusal(model, size)
    if reason is None:
        _USABLE.add(asked)
    return reason


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _preparation(config: Any) -> Preparation:
    import timm
    from timm.data import resolve_data_config

    said = timm.get_pretrained_cfg(_name(config.arch))  # None of networks that others registered
    own = resolve_data_config(pretrained_cfg=said.to_dict() if said else {"input_size": (3, 224, 224)})
    size = own["input_size"][-1]
    resize = math.floor(size / own["crop_pct"])
    return Preparation(size, resize, tuple(own["mean"]), tuple(own["std"]), own["interpolation"])


def _build(config: Any, n_classes: int, image_size: int) -> "Network":
    from extract.networks.found import with_new_classifier

    model = _model(config, n_classes)
    makers = {type(module).__module__.partition(".")[0] for module in model.modules()}
    network = with_new_classifier(model, image_size, n_classes, config.arch)
    network.is_known = makers <= {"timm", "torch", "torchvision"}  # timm's registry is open to anyone's code
    return network


def _model(config: Any, n_classes: int) -> "nn.Module":
    import timm

    if config.weights not in (None, "DEFAULT"):
        raise UserError(
            f"--weights {config.weights}: {config.arch} takes DEFAULT; name others with the architecture, "
            "as in timm:resnet50.a1_in1k"
        )
    try:
        with warnings.catch_warnings(action="ignore"):
            pretrained = config.weights is not None
            made = {"pretrained": pretrained, "num_classes": n_classes} | arguments(config)
            return timm.create_model(_name(config.arch), **made)
    except Exception as error:  # timm and the hub that it downloads from raise errors of many libraries
        if config.weights is None:
            raise UserError(f"--arch {config.arch}: cannot be made ({_reason(error)})") from error
        raise UserError(
            f"--weights DEFAULT: cannot be loaded for {config.arch} ({_reason(error)}); downloaded at "
            "first use, which needs a network connection; leave it out to train from random ones"
        ) from error


FAMILY = Family((), _build, _preparation, ("weights", "arch_option"), _has, _refusal, others="timm:NAME")
