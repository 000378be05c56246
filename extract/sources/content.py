"""What a file is by its content, whatever its name."""

from functools import cache
from pathlib import Path

from PIL import Image

from extract.images.decode import TURNS, orientation

# Pillow recognises these by their first bytes, but cannot decode them without other programs.
NO_PIXELS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


def is_image(path: str) -> bool:
    """Whether a file starts like an image of a format that Pillow decodes; it is not decoded.

    Raises:
        OSError: a file that may not be read.
    """
    try:
        with Image.open(path, formats=_formats()):
            return True
    except Image.DecompressionBombError:  # its size was read, so it is an image
        return True
    except Exception as error:  # other bytes can fail anywhere in Pillow's readers
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return False


@cache
def image_extensions() -> frozenset[str]:
    """Extensions, in lower case and with the dot, of the formats that Pillow decodes."""
    Image.init()
    return frozenset(extension for extension, name in Image.EXTENSION.items() if name in _formats())


def lies_turned(path: Path) -> bool:
    """Whether EXIF says that a photograph has to be turned or mirrored; False if it cannot be opened."""
    try:
        with Image.open(path, formats=("JPEG", "WEBP")) as image:
            return orientation(image) in TURNS
    except Exception:  # as above
        return False


@cache
def _formats() -> tuple[str, ...]:
    """Formats recognised by their first bytes; of the others only TGA, whose reader checks closely enough."""
    Image.init()
    recognised = [name for name in Image.ID if Image.OPEN[name][1] is not None and name not in NO_PIXELS]
    return (*recognised, "TGA")
