"""A whole network from a file of another program, with the FC layer for the classes it was trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from extract.networks.parts import Network
from extract.networks.weights_file import (
    EMA,
    best_prefix,
    check_fit,
    check_no_deeper,
    check_numbers,
    counted,
    tensors_of,
)
from store.errors import UserError
from store.notes import note

State = dict[str, torch.Tensor]


def load_whole(network: Network, content: Any, path: Path, config: Any) -> None:
    """Load features and FC layer, under the names that the network's authors gave them.

    Args:
        network: for the K classes of the images.
        content: what the file holds, of `read_content`.
        path: the file, for messages.
        config: the NetworkConfig: `arch` for messages, and whether averaged weights (`ema`) are meant.

    Raises:
        UserError: a tensor is missing or has another shape, or the FC layer is of another number of classes.
    """
    found = tensors_of(content, path)
    _flatten_convolved(network, found)
    before = network.backbone_prefix
    features = {before + name: value for name, value in network.backbone.state_dict().items()}
    prefix = best_prefix(found, features, path, config.arch, config.ema)
    own = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
    check_fit({n: v for n, v in own.items() if not _of(network, n)}, features, path, config.arch)
    check_no_deeper(own, features, network.classifier_names, path, config.arch)
    weight, bias = _classifier(network, found, prefix, path, config)
    check_numbers(
        {n: own[n] for n in features if n in own} | {n: found[n] for n in (weight, bias) if n in found}, path
    )
    network.backbone.load_state_dict(
        {name.removeprefix(before): own[name] for name in features if name in own}, strict=False
    )
    with torch.no_grad():
        network.classifier.weight.copy_(found[weight])
        network.classifier.bias.copy_(found[bias]) if bias in found else network.classifier.bias.zero_()
    taken = {prefix + name for name in features} | {weight, bias}
    apart = None if weight.startswith(prefix) else weight.removesuffix(".weight")
    _tell(found, taken, (prefix, apart), path, config.arch)
    if bias not in found:
        note(f"{path}: its FC layer has no bias; ours begins with zeros, which fine-tuning may change")


def _flatten_convolved(network: Network, found: State) -> None:
    """Make (K, C) of the weights (K, C, 1, 1) of an FC layer that is a 1×1 convolution."""
    ends = tuple(f".{name}.weight" for name in network.classifier_names)
    for name, value in found.items():
        if f".{name}".endswith(ends) and value.shape[2:] == (1, 1):
            found[name] = value.flatten(1)


def _of(network: Network, name: str) -> bool:
    """Whether a tensor is of the FC layer."""
    return name.rpartition(".")[0] in network.classifier_names


def _classifier(
    network: Network, found: Mapping[str, torch.Tensor], prefix: str, path: Path, config: Any
) -> tuple[str, str]:
    """The names of weight and bias of the FC layer in a file; there need be no bias."""
    names = [f"{prefix}{name}.weight" for name in network.classifier_names]
    names = [name for name in names if name in found] or _elsewhere(
        network, found, EMA.search(prefix.lower()) is not None
    )
    fc = network.classifier_names[0]
    if len(names) != 1 and len({id(found[name]) for name in names}) != 1:
        raise _no_one_classifier(names, f"{prefix}{fc}", found, path, config.arch)
    weight = names[0]
    bias = f"{weight.removesuffix('weight')}bias"
    n_classes, channels = network.classifier.weight.shape
    shape = tuple(found[weight].shape)
    if len(shape) == 2 and shape[1] == channels and shape[0] != n_classes:
        raise UserError(
            f"{path}: its FC layer {weight} is for {shape[0]:,} classes, but the images are of "
            f"{n_classes:,}; name the images that it was trained on, or leave it with `--classifier fresh` "
            "(a new one) or `fit`"
        )
    own = {name.removeprefix(prefix): found[name] for name in (weight, bias) if name in found}
    wanted = {weight.removeprefix(prefix): network.classifier.weight}
    check_fit(own, wanted | {bias.removeprefix(prefix): network.classifier.bias}, path, config.arch, own)
    return weight, bias


def _no_one_classifier(
    names: list[str], fc: str, found: Mapping[str, torch.Tensor], path: Path, arch: str
) -> UserError:
    among = f"{len(names)} ({', '.join(names[:3])})" if names else f"no {fc}.weight"
    below = [name for name in found if name.startswith(f"{fc}.") and found[name].dim() == 2]
    if below:
        return UserError(
            f"{path}: has {among} for the FC layer of {arch}, but {', '.join(below[:3])}: its head "
            "is another one, so name a function of yours that makes it (--arch package.module:function)"
        )
    return UserError(
        f"{path}: has {among} for the FC layer of {arch}; expected one; `--classifier fresh` draws a new "
        "one, and `fit` fits one"
    )


def _elsewhere(network: Network, found: Mapping[str, torch.Tensor], ema: bool) -> list[str]:
    """Weights of an FC layer that are kept apart from the rest, as Decoupling keeps them."""
    ends = tuple(f".{name}.weight" for name in network.classifier_names)
    names = [name for name in found if f".{name}".endswith(ends)]
    return [name for name in names if bool(EMA.search(name.lower())) == ema]


def _tell(
    found: Mapping[str, torch.Tensor], taken: set[str], where: tuple[str, str | None], path: Path, arch: str
) -> None:
    """Note what was taken and what was left, and weights whose numbers were converted.

    Args:
        found: the tensors of the file.
        taken: names of those taken.
        where: what stands before their names, and the FC layer's name if it is kept apart from the rest.
        path: the file.
        arch: the network's name.
    """
    prefix, apart = where
    used = [name for name in found if name in taken]
    left = [name for name in found if name not in taken]
    under = f" under {prefix!r}" if prefix else ""
    fc = "its FC layer among them" if apart is None else f"its FC layer from {apart}"
    rest = f"; {counted(left)} left out, which are no part of it" if left else ""
    note(f"{path}: {len(used)} tensors{under} for {arch}, {fc}{rest}")
    kinds = {found[name].dtype for name in used if found[name].is_floating_point()} - {torch.float32}
    if kinds:
        words = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        note(f"{path}: its weights are {words}; they are converted to float32")
