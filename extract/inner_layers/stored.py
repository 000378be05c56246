"""The layers that an extraction stores besides the last one, with their dtypes and codecs."""

from collections.abc import Mapping

from extract.checkpoints.restore import Restored
from extract.config import ExtractConfig
from extract.device import Compute
from extract.inner_layers.found import find_layers
from extract.inner_layers.options import layer_dtypes, named_layers
from store.errors import UserError
from store.layout import LayerMaps

IDENTITY = "list of layers"  # entry of a store's identity


def stored_layers(config: ExtractConfig, restored: Restored, compute: Compute) -> dict[str, LayerMaps]:
    """The maps of earlier layers that a store will hold, by the layer's name, in the order in which they run.

    Args:
        config: the options.
        restored: the network, on the device.
        compute: the device.

    Raises:
        UserError: there is no such layer, or its maps cannot be stored.
    """
    named = named_layers(config.layers)
    dtypes = layer_dtypes(named, config.dtype, config.layer_dtype)
    shapes = find_layers(restored.network, named, restored.transform.image_size, compute.device)
    for text in config.layer_dtype:
        layer = text.partition("=")[0].strip()
        if layer not in shapes:
            raise UserError(
                f"--layer-dtype {text}: {layer} is the last layer, whose maps have the dtype of --dtype"
            )
    return {layer: LayerMaps(shape, dtypes[layer], config.codec) for layer, shape in shapes.items()}


def in_words(dtypes: Mapping[str, str]) -> str:
    """Layers and their dtypes, as the identity of a store has them."""
    return ", ".join(f"{layer} {dtype}" for layer, dtype in dtypes.items())
