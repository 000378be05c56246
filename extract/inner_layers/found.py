"""The layers of a network whose maps can be stored: modules that run once and return (B, C, H, W)."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from extract.networks.parts import Network
from store.errors import UserError

N_IMAGES = 2  # of a trial
STEP = 32  # pixels by which images grow for a second trial: most networks halve their maps five times
SHOWN = 12  # names in a message
FORBIDDEN = set("/\\\0")  # in names of arrays


@dataclass
class Trial:
    """What the modules of a network returned for some random images.

    Attributes:
        outputs: shapes of what each module returned, or in words what else that was, in the order of first
            returns, by name among the modules of `backbone`.
        copies: of what some of them returned, as it was then.
        feature_map: (B, C, H, W) the network's last map.
    """

    outputs: dict[str, list[tuple[int, ...] | str]] = field(default_factory=dict)
    copies: dict[str, torch.Tensor] = field(default_factory=dict)
    feature_map: torch.Tensor | None = None


def module_of(network: Network, layer: str) -> nn.Module:
    """A layer by its name among the network's modules, or by the name of a stage."""
    return network.backbone.get_submodule(network.stages.get(layer, layer))


@torch.inference_mode()
def find_layers(
    network: Network, layers: list[str], image_size: int, device: torch.device
) -> dict[str, tuple[int, int, int]]:
    """Shapes (H, W, C) of the maps of earlier layers, by name, in the order in which they run.

    A layer whose maps are the last ones, which a store holds anyway, is left out.

    Args:
        network: on the device.
        layers: names of modules, or of stages.
        image_size: side of the images in pixels.
        device: where the network is.

    Raises:
        UserError: there is no such layer, or its maps cannot be stored.
    """
    if not layers:
        return {}
    paths = {layer: network.stages.get(layer, layer) for layer in layers}
    trial, larger = _tried(network, image_size, paths.values(), device), None
    with suppress(Exception):  # a network of one image size may refuse others in any way
        larger = _tried(network, image_size + STEP, (), device)
    reasons = {path: _refusal(path, trial, larger) for path in trial.outputs}
    for layer, path in paths.items():
        if path not in trial.outputs:
            known = path in dict(network.backbone.named_modules(remove_duplicate=False))
            why = "does not run, or not by a call of the module" if known and path else "no such layer"
            raise UserError(f"--layers {layer}: {why}; {_listed(network, reasons)}")
        if reasons[path] is not None:
            raise UserError(f"--layers {layer}: {reasons[path]}; {_listed(network, reasons)}")
    final = trial.feature_map
    earlier = {layer: path for layer, path in paths.items() if not _same(trial.copies[path], final)}
    _check_different(earlier, trial)
    order = list(trial.outputs)
    return {
        layer: _axes_last(trial.outputs[path][0])
        for layer, path in sorted(earlier.items(), key=lambda item: order.index(item[1]))
    }


def _tried(network: Network, image_size: int, copied: Any, device: torch.device) -> Trial:
    """Run random images through a network, and note what each module returns."""
    trial, copied = Trial(), set(copied)

    def note(path: str, module: nn.Module, args: Any, output: Any) -> None:
        is_tensor = isinstance(output, torch.Tensor) and output.is_floating_point()
        trial.outputs.setdefault(path, []).append(tuple(output.shape) if is_tensor else _kind(output))
        if path in copied and is_tensor:
            trial.copies[path] = output.clone()

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(N_IMAGES, 3, image_size, image_size, generator=generator).to(device)
    hooks = [
        module.register_forward_hook(partial(note, path))
        for path, module in network.backbone.named_modules(remove_duplicate=False)
        if path and not isinstance(module, torch.jit.ScriptModule)  # which takes none
    ]
    try:
        trial.feature_map = network.eval().features(images)
    finally:
        for hook in hooks:
            hook.remove()
    return trial


def _kind(output: Any) -> str:
    if isinstance(output, torch.Tensor):
        return f"numbers of {str(output.dtype).removeprefix('torch.')}"
    return f"a {type(output).__name__}" if output is not None else "nothing"


def _refusal(path: str, trial: Trial, larger: Trial | None) -> str | None:
    """Why maps of a module cannot be stored, None if they can."""
    outputs = trial.outputs[path]
    if len(outputs) > 1:
        return f"runs {len(outputs)} times in one pass, so it has no map of its own"
    shape = outputs[0]
    if isinstance(shape, str) or len(shape) != 4 or shape[0] != N_IMAGES:
        found = shape if isinstance(shape, str) else _words(shape)
        return f"returns {found} for {N_IMAGES} images, expected maps (B, C, H, W)"
    if FORBIDDEN & set(path) or not path.isprintable():
        return "its name cannot be that of an array"
    of_larger = (larger.outputs.get(path) or [None])[0] if larger is not None else None
    if _channels_last(shape, of_larger):
        return f"returns {_words(shape)}, whose channels come last; expected maps (B, C, H, W)"
    if shape[2:] == (1, 1) and trial.feature_map.shape[2:] != (1, 1):
        return "returns one position for each image, which is no map"
    return None


def _channels_last(shape: tuple[int, ...], larger: Any) -> bool:
    """Whether the axis that does not grow with the images is the last one."""
    if isinstance(larger, tuple) and len(larger) == 4 and larger[1:] != shape[1:]:
        return larger[1] != shape[1]
    return shape[2] != shape[3] and shape[1] == shape[2]


def _words(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _listed(network: Network, reasons: Mapping[str, str | None]) -> str:
    """The layers that can be stored, stages and outer modules first."""
    whole = [path for path, reason in reasons.items() if reason is None]
    stages = [stage for stage, path in network.stages.items() if path in whole]
    names = [*stages, *sorted(whole, key=lambda path: path.count("."))]
    more = f" and {len(names) - SHOWN} more inside of these" if len(names) > SHOWN else ""
    return f"expected some of {', '.join(names[:SHOWN])}{more}" if names else "it has no layer to store"


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _check_different(paths: Mapping[str, str], trial: Trial) -> None:
    """Raise UserError for two layers that return one map, as a stage and its last block do."""
    for i, layer in enumerate(names := list(paths)):
        for other in names[:i]:
            if _same(trial.copies[paths[layer]], trial.copies[paths[other]]):
                raise UserError(f"--layers {layer}: returns the map of {other} too; name one of them")


def _axes_last(shape: Any) -> tuple[int, int, int]:
    """(H, W, C) of (B, C, H, W)."""
    _, channels, height, width = shape
    return height, width, channels
