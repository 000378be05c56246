"""The layers that an extraction stores besides the last one, with their dtypes and codecs."""

from collections.abc import Mapping
from typing import Any

import torch

from extract.inner_layers.found import find_layers
from extract.inner_layers.options import layer_dtypes, named_layers
from extract.networks.parts import Network
from store.errors import UserError
from store.layout import LayerMaps
from store.notes import note

IDENTITY = "list of layers"  # entry of a store's identity
Shapes = dict[str, tuple[int, int, int]]


def layer_shapes(config: Any, network: Network, image_size: int, device: torch.device) -> Shapes:
    """Shapes (H, W, C) of the maps of earlier layers that a store will hold, in the order in which they run.

    Args:
        config: the options of an extraction, or of `store plan`.
        network: on the device.
        image_size: side of the images in pixels.
        device: where the network is.

    Raises:
        UserError: there is no such layer, or its maps cannot be stored.
    """
    names = named_layers(config.layers)
    shapes = find_layers(network, names, image_size, device)
    for layer in names:
        if layer not in shapes:
            note(f"--layers {layer}: is the last layer, which adds nothing: its maps are train/feature_map")
    for text in config.layer_dtype:
        layer = text.partition("=")[0].strip()
        if layer not in shapes:
            raise UserError(
                f"--layer-dtype {text}: {layer} is the last layer, whose maps have the dtype of --dtype"
            )
    return shapes


def stored_layers(config: Any, shapes: Shapes, dtype: str, codec: str) -> dict[str, LayerMaps]:
    """How maps of earlier layers are stored beside feature maps of a dtype and codec, by the layer's name."""
    dtypes = layer_dtypes(named_layers(config.layers), dtype, config.layer_dtype)
    return {layer: LayerMaps(shape, dtypes[layer], codec) for layer, shape in shapes.items()}


def in_words(dtypes: Mapping[str, str]) -> str:
    """Layers and their dtypes, as the identity of a store has them."""
    return ", ".join(f"{layer} {dtype}" for layer, dtype in dtypes.items())
