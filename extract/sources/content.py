"""What a file is by its content, whatever its name says."""

from functools import cache
from pathlib import Path

from PIL import Image

from extract.images.decode import TURNS, orientation

# Pillow knows these by their first bytes, but has no pixels of them without other programs.
NO_PIXELS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


def is_image(path: str) -> bool:
    """Whether a file begins as an image of a format that Pillow decodes; whether it can be, is not tried.

    Raises:
        OSError: a file that may not be read.
    """
    try:
        with Image.open(path, formats=_formats()):
            return True
    except Image.DecompressionBombError:  # its size is known, so it is one
        return True
    except Exception as error:  # bytes that are no image can fail anywhere in Pillow's readers
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return False


@cache
def image_extensions() -> frozenset[str]:
    """Extensions, in lower case and with the dot, of the formats that Pillow decodes."""
    Image.init()
    return frozenset(extension for extension, name in Image.EXTENSION.items() if name in _formats())


def lies_turned(path: Path) -> bool:
    """Whether EXIF has a photograph turned or mirrored to be seen; False of what cannot be opened."""
    try:
        with Image.open(path, formats=("JPEG", "WEBP")) as image:
            return orientation(image) in TURNS
    except Exception:  # as above
        return False


@cache
def _formats() -> tuple[str, ...]:
    """Those that are told by their first bytes; of the others TGA alone, which looks closely enough."""
    Image.init()
    told = [name for name in Image.ID if Image.OPEN[name][1] is not None and name not in NO_PIXELS]
    return (*told, "TGA")
