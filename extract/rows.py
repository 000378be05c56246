"""What a store holds of a batch of images: computed on the device, then copied to the host and checked."""

from collections.abc import Iterator

import numpy as np
import torch

from extract.cam import class_activation_maps
from extract.device import Compute
from extract.images.image_set import ImageSet
from extract.images.transforms import Transform
from extract.inference import numbered_maps
from extract.networks.parts import Network, pool
from extract.transfer import Tensors, to_device, to_host
from store.arrays.dtypes import NUMPY, largest
from store.errors import UserError

BUFFERED_AS = {  # as the writer takes them; of lossy dtypes it computes the scales itself
    "float16": torch.float16,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "int8": torch.float32,
    "float8_e4m3": torch.float32,
}
EXTREMES = "extremes"  # the lowest and highest value of a batch's maps, which are not stored


def computed_rows(
    network: Network,
    images: ImageSet,
    transform: Transform,
    compute: Compute,
    map_dtype: str | None = None,
) -> Iterator[tuple[int, int, dict[str, np.ndarray]]]:
    """Position of the first image, view, and rows by array name, of each batch in turn; see `check_rows`.

    Args:
        network: on the device.
        images: in the order of the rows.
        transform: how they are prepared.
        compute: device and batch size.
        map_dtype: dtype of the stored maps; None for images of which only pooled features are stored.

    Raises:
        UserError: an image cannot be read.
    """
    label, weight = torch.from_numpy(images.label), network.classifier.weight.detach()

    def on_device() -> Iterator[tuple[tuple[int, int], Tensors]]:
        for start, view, maps in numbered_maps(network, images, transform, compute):
            rows = {"pooled": pool(maps)}
            if map_dtype is not None:
                rows |= _map_rows(maps, weight, label[start : start + len(maps)], BUFFERED_AS[map_dtype])
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


def check_rows(rows: dict[str, np.ndarray], split: str, map_dtype: str) -> dict[str, np.ndarray]:
    """The rows that are stored of a batch.

    Raises:
        UserError: features that are not finite, or beyond the range of the maps' dtype.
    """
    stored = {name: values for name, values in rows.items() if name != EXTREMES}
    if EXTREMES in rows and np.abs(rows[EXTREMES]).max() > largest(map_dtype):
        raise UserError(f"train: feature maps exceed the range of {map_dtype}; pass --dtype float32")
    if not np.isfinite(stored["pooled"]).all():
        raise UserError(
            f"{split}: the network's features are not finite, so its weights are useless; train again"
        )
    return stored
