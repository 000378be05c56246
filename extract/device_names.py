"""Names of devices, checked before torch is imported; torch then knows whether the machine has them."""

import re

from store.errors import UserError

DEVICE = re.compile(r"auto|(cpu|cuda)(:[0-9]+)?")


def check_device(name: str) -> None:
    """Raise UserError for a name that is not a device on any machine."""
    if not DEVICE.fullmatch(name):
        raise unknown_device(name)


def unknown_device(name: str) -> UserError:
    """The error for an unknown device."""
    return UserError(f"--device {name}: unknown; expected auto, cpu, cuda or cuda:N")
