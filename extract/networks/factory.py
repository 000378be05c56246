"""The user's own networks, as `package.module:function`, taken apart by what flows through them."""

import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from extract.networks.arguments import arguments
from extract.networks.family import Family, Preparation
from store.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from extract.networks.parts import Network

IMAGE_SIZE = 224  # where the user names none
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

    module, function = config.arch.split(":")
    with _working_folder_importable():
        try:
            factory = getattr(importlib.import_module(module), function)
        except (Exception, SystemExit) as error:  # code of the user's can fail in any way
            raise _failed(config.arch, "cannot be imported", error) from error
    try:
        network = factory(**arguments(config))
    except (Exception, SystemExit) as error:
        raise _failed(config.arch, "failed", error) from error
    if not isinstance(network, nn.Module):
        raise UserError(
            f"--arch {config.arch}: returned {type(network).__name__}, expected a torch.nn.Module"
        )
    return network


def _failed(arch: str, how: str, error: Exception) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return UserError(f"--arch {arch}: {how} ({reason}); expected a function that returns a torch.nn.Module")


@contextmanager
def _working_folder_importable() -> Iterator[None]:
    """The installed program does not look for modules there, `python` does; what is installed goes first."""
    sys.path.append(os.getcwd())
    try:
        yield
    finally:
        sys.path.pop()


FAMILY = Family(
    (),
    _build,
    lambda config: Preparation(IMAGE_SIZE),
    ("arch_option",),
    is_factory,
    others="package.module:function",
)
