"""Names of devices, told from others before torch is imported, which knows whether the machine has them."""

import re

from store.errors import UserError

DEVICE = re.compile(r"auto|(cpu|cuda)(:[0-9]+)?")


def check_device(name: str) -> None:
    """Raise UserError for a name that no machine has a device of."""
    if not DEVICE.fullmatch(name):
        raise unknown_device(name)


def unknown_device(name: str) -> UserError:
    """What to say of such a name."""
    return UserError(f"--device {name}: unknown; expected auto, cpu, cuda or cuda:N")
