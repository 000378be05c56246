"""Options of `store plan`.

A field whose type is `Annotated` is an option of the command line, which the annotation describes. Nothing
heavy is imported here, so that `--help` answers at once.
"""

from dataclasses import dataclass, field
from typing import Annotated

from extract.inner_layers.options import layer_dtypes, named_layers
from extract.networks.config import NetworkConfig
from extract.options import (
    Codec,
    Device,
    ImagesAtOnce,
    ImageSize,
    LayerDtypes,
    Layers,
    MapDtype,
    NViews,
    Precision,
    Workers,
)
from extract.sources.config import DatasetConfig
from store.options import Option, check_bounds


@dataclass(frozen=True)
class ForecastConfig:
    """Options of `store plan`. Network and images come from options or from a checkpoint."""

    ckpt: Annotated[
        str | None,
        Option("trained checkpoint, instead of options for data and network", "files"),
    ] = None
    network: NetworkConfig = field(default_factory=NetworkConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    image_size: ImageSize = None
    store: Annotated[str, Option("where the store would go: a path that ends in .zarr or .h5", "files")] = (
        "feats.zarr"
    )
    views: NViews = 1
    layers: Layers = None
    layer_dtype: LayerDtypes = ()
    dtype: MapDtype = "float16"
    codec: Codec = "none"
    precision: Precision = "fp32"
    batch_size: ImagesAtOnce = 128
    device: Device = "auto"
    workers: Workers = 2
    iterations: Annotated[int, Option("SGD steps of fine-tuning to plan for", "schedule", least=1)] = 6400
    seconds: Annotated[float, Option("seconds to spend on each measurement", "machine", least=0.01)] = 2.0

    def check_numbers(self) -> None:
        """Raise UserError for a value out of its range; None passes."""
        check_bounds(self)
        check_bounds(self.network)
        layer_dtypes(named_layers(self.layers), self.dtype, self.layer_dtype)
