"""What a store holds of a batch of images: computed on the device, then copied to the host and checked."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from extract.cam import class_activation_maps
from extract.device import Compute
from extract.images.image_set import ImageSet
from extract.images.transforms import Transform
from extract.inference.passes import numbered_maps
from extract.inference.transfer import Tensors, to_device, to_host
from extract.inner_layers.captured import EXTREMES, CapturedLayers, extremes_of
from extract.networks.parts import Network, pool
from store.arrays.dtypes import NUMPY, largest
from store.errors import UserError
from store.schema import maps_name

BUFFERED_AS = {  # as the writer takes them; of lossy dtypes it computes the scales itself
    "float16": torch.float16,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "int8": torch.float32,
    "float8_e4m3": torch.float32,
}
NO_LAYERS: Mapping[str, str] = {}


def computed_rows(
    network: Network,
    images: ImageSet,
    transform: Transform,
    compute: Compute,
    map_dtype: str | None = None,
    layers: Mapping[str, str] = NO_LAYERS,
) -> Iterator[tuple[int, int, dict[str, np.ndarray]]]:
    """Position of the first image, view, and rows by array name, of each batch in turn; see `check_rows`.

    Args:
        network: on the device.
        images: in the order of the rows.
        transform: how they are prepared.
        compute: device and batch size.
        map_dtype: dtype of the stored maps; None for images of which only pooled features are stored.
        layers: dtypes of the stored maps of earlier layers, by the layer's name; none without `map_dtype`.

    Raises:
        UserError: an image cannot be read.
    """
    label, weight = torch.from_numpy(images.label), network.classifier.weight.detach()

    captured = CapturedLayers(network, {layer: BUFFERED_AS[dtype] for layer, dtype in layers.items()})
    watched = captured if layers else None

    def on_device() -> Iterator[tuple[tuple[int, int], Tensors]]:
        for start, view, maps in numbered_maps(network, images, transform, compute, watched):
            rows = {"pooled": pool(maps)}
            if map_dtype is not None:
                rows |= _map_rows(maps, weight, label[start : start + len(maps)], BUFFERED_AS[map_dtype])
                rows |= captured.take(len(maps))
            yield (start, view), rows

    for (start, view), rows in to_host(on_device(), compute.device):
        yield start, view, {name: _as_array(tensor) for name, tensor in rows.items()}


def _map_rows(maps: torch.Tensor, weight: torch.Tensor, label: torch.Tensor, dtype: torch.dtype) -> Tensors:
    """Maps (B, H, W, C) rounded to a dtype, CAMs (B, H, W) and extremes (2,) of maps (B, C, H, W)."""
    channels_last = maps.permute(0, 2, 3, 1)
    return {
        "feature_map": channels_last.to(dtype, memory_format=torch.contiguous_format),
        "cam": class_activation_maps(channels_last, weight, to_device(label, maps.device)),
        EXTREMES: torch.stack(maps.aminmax()).double(),
    }


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:  # torch cannot convert it to numpy
        return tensor.view(torch.int16).numpy().view(NUMPY["bfloat16"])
    return tensor.numpy()


def check_rows(
    rows: dict[str, np.ndarray], split: str, map_dtype: str, layers: Mapping[str, str] = NO_LAYERS
) -> dict[str, np.ndarray]:
    """The rows that are stored of a batch.

    Raises:
        UserError: features that are not finite, or beyond the range of the maps' dtype.
    """
    extremes = {EXTREMES, *(extremes_of(maps_name(layer)) for layer in layers)}
    stored = {name: values for name, values in rows.items() if name not in extremes}
    if EXTREMES in rows and np.abs(rows[EXTREMES]).max() > largest(map_dtype):
        raise UserError(f"train: feature maps exceed the range of {map_dtype}; pass --dtype float32")
    if not np.isfinite(stored["pooled"]).all():
        raise UserError(
            f"{split}: the network's features are not finite, so its weights are useless; train again"
        )
    for layer, dtype in layers.items():
        most = np.abs(rows[extremes_of(maps_name(layer))]).max()
        if not np.isfinite(most):
            raise UserError(f"{split}: maps of {layer} are not finite; leave it out of --layers")
        if most > largest(dtype):
            raise UserError(
                f"{split}: maps of {layer} exceed the range of {dtype}; pass --layer-dtype {layer}=float32"
            )
    return stored
