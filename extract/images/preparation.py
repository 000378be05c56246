"""Options of how images reach the network: channel statistics, and how large ones are resized."""

from typing import Any

from store.errors import UserError
from store.options import flag

IN_MEMORY_SIZE = 64  # images up to this many pixels a side live decoded in memory


def channels(name: str, text: str) -> tuple[float, ...]:
    """The numbers of `--mean` or `--std`.

    Raises:
        UserError: these are not three numbers in their range.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    low = 0 if name == "mean" else 1e-6
    if len(values) != 3 or not all(low <= value <= 1 for value in values):
        more = "from 0 to 1" if name == "mean" else "above 0, at most 1"
        raise UserError(f"{flag(name)} {text}: expected three numbers {more}, as in 0.5,0.5,0.5")
    return values


def check_preparation(config: Any) -> None:
    """Raise UserError for options of a TrainConfig that cannot be, or that would change nothing."""
    for name in ("mean", "std"):
        if getattr(config, name) is not None:
            channels(name, getattr(config, name))
    if config.crop is not None and not 0.1 <= config.crop <= 1:
        raise UserError(f"--crop {config.crop:g}: must be a share from 0.1 to 1")
    if config.image_size is not None and config.image_size <= IN_MEMORY_SIZE:
        for name in ("crop", "interpolation"):
            if getattr(config, name) is not None:
                raise UserError(
                    f"{flag(name)}: images of {config.image_size} pixels are resized as a whole, bilinearly; "
                    f"leave it out, or name an --image-size above {IN_MEMORY_SIZE}"
                )
