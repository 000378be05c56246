"""Where a network pools its last feature map, found by what flows into its logits.

A network's code says little that can be relied on: pooling may be a module or a call, flattening a view, an
activation a function. So the calls of one forward pass are watched, and followed back from the logits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import isqrt
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

RESHAPING = {  # calls that leave the numbers of a feature as they are, in evaluation, perhaps moved
    torch.flatten,
    torch.reshape,
    torch.squeeze,
    torch.Tensor.flatten,
    torch.Tensor.view,
    torch.Tensor.reshape,
    torch.Tensor.squeeze,
    torch.Tensor.permute,
    torch.Tensor.transpose,
    torch.Tensor.contiguous,
    torch.Tensor.float,
    torch.Tensor.to,
    torch.Tensor.clone,
    F.dropout,
    F.dropout1d,
    F.dropout2d,
}
MEANS = {torch.mean, torch.Tensor.mean}
POOLINGS = {*MEANS, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.avg_pool1d, F.avg_pool2d}


class NotExactError(Exception):
    """Why class activation maps of a network would not be exact, in words."""


class FailedError(Exception):
    """A network cannot be run on images of a size, in words."""


@dataclass(frozen=True)
class Call:
    """A call of a torch function in a forward pass.

    Attributes:
        func: the function.
        args, kwargs: its arguments.
        result: the tensor that it made, or changed in place.
        source: the call that had made the numbers of its first tensor; None for what no call made.
    """

    func: Callable
    args: tuple
    kwargs: dict[str, Any]
    result: torch.Tensor
    source: "Call | None"

    @property
    def name(self) -> str:
        """Of the function, as messages show it."""
        return getattr(self.func, "__name__", str(self.func)).strip("_")

    @property
    def tensor(self) -> torch.Tensor | None:
        """Its first argument that is a tensor."""
        return first_tensor(self.args, self.kwargs)

    @property
    def reshapes(self) -> bool:
        """Whether it leaves all numbers of its tensor as they are."""
        whole = self.func is torch.Tensor.__getitem__ and self.result.numel() == self.tensor.numel()
        return self.func in RESHAPING or whole

    @property
    def pooled_axes(self) -> tuple[int, ...]:
        """The axes that a pooling takes the mean of; none if it leaves several values along them."""
        if self.func not in MEANS:
            n_axes = 1 if "1d" in self.name else 2
            whole = self.result.shape[-n_axes:] == (1,) * n_axes
            return tuple(range(self.tensor.ndim - n_axes, self.tensor.ndim)) if whole else ()
        axes = self.kwargs.get("dim", self.args[1] if len(self.args) > 1 else ())
        axes = (axes,) if isinstance(axes, int) else tuple(axes or ())
        return tuple(sorted(axis % self.tensor.ndim for axis in axes))


class Watch(TorchFunctionMode):
    """Keeps every call of a forward pass by the tensor that it made."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, Call] = {}  # tensors stay alive in it, so that none takes the id of another
        self.poolings: list[Call] = []

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """Make a call and keep it."""
        kwargs = kwargs or {}
        source = self.maker(first_tensor(args, kwargs))
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            call = Call(func, args, kwargs, result, source)
            if func in POOLINGS:
                self.poolings.append(call)
            if not (call.reshapes and call.tensor is result):  # else nothing was made
                self._made[id(result)] = call
        return result

    def maker(self, tensor: torch.Tensor | None) -> Call | None:
        """The call that made the numbers of a tensor, however it was reshaped since."""
        call = self._made.get(id(tensor))
        return call.source if call is not None and call.reshapes else call


def first_tensor(args: tuple, kwargs: dict[str, Any]) -> torch.Tensor | None:
    """The first of a call's arguments that is a tensor."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)


@dataclass(frozen=True)
class Split:
    """Where a network comes apart.

    Attributes:
        classifier: name of its FC layer among its modules; it may be a 1×1 convolution of pooled features.
        layout: of the tensor that is pooled, of LAYOUTS.
        makes_map: name of a module that runs once and returns that tensor; None if there is none.
    """

    classifier: str
    layout: str
    makes_map: str | None


LAYOUTS: dict[str, tuple[int, tuple[int, ...]]] = {  # by number of axes, and those that are pooled
    "channels first": (4, (2, 3)),
    "channels last": (4, (1, 2)),
    "tokens": (3, (1,)),
    "tokens, channels first": (3, (2,)),
}


def find_split(network: nn.Module, images: torch.Tensor) -> Split:
    """Follow the logits of some images back through one FC layer to the map whose mean it takes.

    Args:
        network: in evaluation mode.
        images: (B, 3, H, W); on the meta device they will do.

    Raises:
        NotExactError: there is another way.
        FailedError: it cannot be run on these images.
    """
    with torch.no_grad(), Watch() as watch, _Outputs(network) as outputs:
        try:
            logits = network(images)
        except Exception as error:  # code of any make can fail in any way
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise FailedError(f"fails on images of {images.shape[-1]} pixels ({reason})") from error
    if not isinstance(logits, torch.Tensor):
        raise NotExactError(f"it returns a {type(logits).__name__}, not logits")
    linear = watch.maker(logits)
    if linear is None or not (linear.func is F.linear or _is_linear_convolution(linear)):
        raise NotExactError(f"its logits come from {_named(linear)}, not from one FC layer")
    name = _owner(network, linear)
    pooling = linear.source
    if pooling is None or pooling.func not in POOLINGS:
        raise NotExactError(_between(pooling, name))
    found = (pooling.tensor.ndim, pooling.pooled_axes)
    layout = next((layout for layout, axes in LAYOUTS.items() if axes == found), None)
    if layout is None:
        raise NotExactError("it does not pool by one mean over all positions")
    if pooling is not watch.poolings[-1]:
        raise NotExactError("it pools again after the map that its FC layer sees")
    return Split(name, layout, outputs.maker(pooling.tensor))


class _Outputs:
    """Keeps what each module of a network returns, while it is entered."""

    def __init__(self, network: nn.Module):
        self._network, self._returned = network, {}

    def __enter__(self) -> "_Outputs":
        self._hooks = [
            module.register_forward_hook(partial(self._keep, name))
            for name, module in self._network.named_modules()
            if name and not isinstance(module, torch.jit.ScriptModule)  # which takes none
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self._returned.setdefault(name, []).append(output)

    def maker(self, tensor: torch.Tensor) -> str | None:
        """The first module that ran once and returned a tensor."""
        for name, outputs in self._returned.items():
            if len(outputs) == 1 and outputs[0] is tensor:
                return name
        return None


def _is_linear_convolution(call: Call) -> bool:
    """Whether a call is a 1×1 convolution of a single position, which is the sum of an FC layer."""
    if call.func is not F.conv2d:
        return False
    weight = _weight(call)
    of_all_channels = weight.shape[1:] == (call.tensor.shape[1], 1, 1)
    return of_all_channels and call.tensor.shape[2:] == call.result.shape[2:] == (1, 1)


def _between(call: Call | None, classifier: str) -> str:
    """What its FC layer is given, where that is not the mean of a map."""
    if call is not None and call.func is torch.Tensor.__getitem__:
        return (
            f"its FC layer {classifier!r} sees one token (a class token, say), not the mean of all positions"
        )
    if call is not None and call.source is not None and call.source.func is F.linear:
        return f"it has more than one FC layer behind its pooling ({classifier!r} is the last)"
    return f"{_named(call)} stands between its pooling and its FC layer {classifier!r}"


def _named(call: Call | None) -> str:
    return "its input" if call is None else call.name


def _weight(call: Call) -> torch.Tensor:
    """The weights of an FC layer's or a convolution's call."""
    return call.args[1] if len(call.args) > 1 else call.kwargs["weight"]


def _owner(network: nn.Module, linear: Call) -> str:
    """The name of the FC layer that made a call."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module.weight is _weight(linear):
            return name
    raise NotExactError("the weights of its FC layer are computed, not its own")


class Returned:
    """Keeps what a module returns, while it is entered; costs nothing in any other call."""

    def __init__(self, module: nn.Module):
        self._module = module
        self.tensor: torch.Tensor | None = None

    def __enter__(self) -> "Returned":
        self._hook = self._module.register_forward_hook(self._keep)
        return self

    def __exit__(self, *error: object) -> None:
        self._hook.remove()

    def _keep(self, module: nn.Module, args: Any, output: torch.Tensor) -> None:
        self.tensor = output


class LastPooled(TorchFunctionMode):
    """Keeps what the last pooling of a forward pass is given; each call in it takes microseconds more."""

    def __init__(self) -> None:
        super().__init__()
        self.tensor: torch.Tensor | None = None

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """Make a call, and keep its tensor if it pools."""
        if func in POOLINGS:
            self.tensor = args[0] if args else kwargs["input"]
        return func(*args, **(kwargs or {}))


def as_map(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    """What is pooled as a (B, C, H, W) feature map; tokens are positions of a square, row by row.

    Raises:
        NotExactError: the tokens are no square.
    """
    if layout == "channels first":
        return tensor
    if layout == "channels last":
        return tensor.permute(0, 3, 1, 2)
    tokens = tensor if layout == "tokens, channels first" else tensor.transpose(1, 2)
    side = isqrt(tokens.shape[2])
    if side**2 != tokens.shape[2]:
        raise NotExactError(f"its {tokens.shape[2]} tokens are no square of positions")
    return tokens.unflatten(2, (side, side))
