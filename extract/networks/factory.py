"""The user's own networks, as `package.module:function`, taken apart by what flows through them."""

import importlib
import math
import os
import re
import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.images.preparation import channels
from extract.networks.arguments import arguments
from extract.networks.family import Family, Preparation
from store.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from extract.networks.parts import Network

IMAGE_SIZE = 224  # where neither the user nor the network says one
CONFIGS = ("pretrained_cfg", "default_cfg")  # attributes of timm's networks that say how images reach them
_prepared: dict[tuple[int, tuple[str, ...]], tuple[Any, Preparation]] = {}  # by id and arguments; function
_returned: weakref.WeakValueDictionary[int, Any] = (
    weakref.WeakValueDictionary()
)  # modules with weights, by id
NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_factory(arch: str) -> bool:
    """Whether an architecture is a function that makes it, which is code of the user's."""
    return NAME.fullmatch(arch) is not None and not arch.startswith("timm:")


def _build(config: Any, n_classes: int, image_size: int) -> "Network":
    from extract.networks.found import with_new_classifier

    return with_new_classifier(_made(config), image_size, n_classes, config.arch)


def _made(config: Any) -> "nn.Module":
    """What the factory returns, once it is a network of images.

    Raises:
        UserError: it cannot be imported or called, or returns something else.
    """
    from torch import nn

    with _working_folder_importable():
        factory = _function(config.arch)
        try:
            network = factory(**arguments(config))
        except (Exception, SystemExit) as error:
            raise _failed(config.arch, "failed", error) from error
    if not isinstance(network, nn.Module):
        raise UserError(
            f"--arch {config.arch}: returned {type(network).__name__}, expected a torch.nn.Module"
        )
    _check_new(config.arch, network)
    _prepared[id(factory), config.arch_option] = factory, _said(network)
    return network


def _function(arch: str) -> Any:
    module, function = arch.split(":")
    try:
        factory = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # code of the user's can fail in any way
        _check_not_hidden(arch, module)
        raise _failed(arch, "cannot be imported", error) from error
    _check_not_hidden(arch, module)
    return factory


def _check_new(arch: str, network: "nn.Module") -> None:
    """Raise UserError for weights that a factory returned before: who loads one network loads both."""
    for module in network.modules():
        if module._parameters or module._buffers:
            if _returned.get(id(module)) is module:
                raise UserError(
                    f"--arch {arch}: returned a {type(module).__name__} that it had returned before; make "
                    "all modules in the function, so that each call returns new ones"
                )
            _returned[id(module)] = module


def _check_not_hidden(arch: str, module: str) -> None:
    """Raise UserError where a file of the working folder has the name of a module that is installed."""
    top = module.partition(".")[0]
    own = next((path for path in (Path(f"{top}.py"), Path(top, "__init__.py")) if path.is_file()), None)
    found = getattr(sys.modules.get(top), "__file__", None)
    if own is None or found is None or own.resolve() == Path(found).resolve():
        return
    folder = Path(found).parent.parent if Path(found).stem == "__init__" else Path(found).parent
    if str(folder) in map(os.path.abspath, sys.path):  # not of a folder where this process worked before
        raise UserError(f"--arch {arch}: {top} is {found}, which hides {own} of this folder; rename yours")


def _failed(arch: str, how: str, error: Exception) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return UserError(f"--arch {arch}: {how} ({reason}); expected a function that returns a torch.nn.Module")


@contextmanager
def _working_folder_importable() -> Iterator[None]:
    """The installed program does not look for modules there, `python` does; what is installed goes first."""
    folder = os.getcwd()
    if folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's code may have changed the list
            sys.path.remove(folder)


def _preparation(config: Any) -> Preparation:
    """As the network says itself, in an attribute of it or of a network inside, as timm's have; else usual.

    That is not known before the function is called, which is done once for the same arguments.
    """
    import torch

    with torch.random.fork_rng(devices=[]):  # what is drawn here is no part of a network
        with _working_folder_importable():
            asked = id(_function(config.arch)), config.arch_option
        if asked not in _prepared:
            _made(config)
    return _prepared[asked][1]


def _said(network: "nn.Module") -> Preparation:
    for module in network.modules():
        for name in CONFIGS:
            with suppress(Exception):  # of the user's code, or of a description in another form
                content = getattr(module, name)
                return _from_timm(content.to_dict() if hasattr(content, "to_dict") else content, name)
    return Preparation(IMAGE_SIZE)


def _from_timm(content: Mapping[str, Any], name: str) -> Preparation:
    """What a description in timm's form says.

    Raises:
        Exception: it is in another form.
    """
    size, crop = int(content["input_size"][-1]), float(content.get("crop_pct") or 1)
    mean, std = (channels(key, ",".join(map(str, content[key]))) for key in ("mean", "std"))
    if size < 1 or not 0 < crop <= 1:
        raise ValueError
    how = content.get("interpolation")
    how = how if how in ("bilinear", "bicubic") else "bilinear"
    return Preparation(size, math.floor(size / crop), mean, std, how, f"its {name}")


FAMILY = Family(
    (),
    _build,
    _preparation,
    ("arch_option",),
    is_factory,
    others="package.module:function",
)
