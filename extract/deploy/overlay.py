"""Pictures of class activation maps: laid over images, as the network saw these."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from extract.deploy.loose_images import LooseImage

OPACITY = 0.5  # of the colours that stand for the map
COLOUR_MAP = "turbo"  # of matplotlib: blue at 0, red at 1


def overlay(images: torch.Tensor, cams: torch.Tensor) -> np.ndarray:
    """Colours of maps, enlarged bilinearly, over images.

    Args:
        images: uint8 (B, 3, H, W).
        cams: (B, h, w) in [0, 1].

    Returns:
        uint8 (B, H, W, 3).
    """
    heat = torch.nn.functional.interpolate(cams[:, None], images.shape[2:], mode="bilinear")[:, 0]
    colours = torch.from_numpy(_colours())[(heat.cpu() * 256).long().clamp_max(255)]  # (B, H, W, 3)
    below = images.cpu().permute(0, 2, 3, 1).float()
    return (below * (1 - OPACITY) + colours * OPACITY).round().to(torch.uint8).numpy()


def _colours() -> np.ndarray:
    """float32 (256, 3), from 0 to 255."""
    import matplotlib  # which takes half a second, and few runs need

    table = matplotlib.colormaps[COLOUR_MAP](np.arange(256))
    return (table[:, :3] * 255).astype(np.float32)


def overlay_names(images: Sequence[LooseImage]) -> list[str]:
    """A file name for each image's overlay: its path below the folder that all named ones lie in, and .png.

    An image keeps its extension: 1.jpg and 1.png of one folder are two images.
    """
    top = os.path.commonpath({image.folder for image in images})
    return [f"{os.path.relpath(image.absolute, top)}.png" for image in images]


def save_picture(pixels: np.ndarray, path: Path) -> None:
    """Write uint8 (H, W, 3) as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")
