"""Options that several commands share, each defined once; their defaults are in the configs."""

from typing import Annotated, Literal

from store.errors import UserError
from store.options import Option

_CHANNELS = "the network's if it is pre-trained, else the images'"
Mean = Annotated[
    str | None, Option("means of the red, green and blue channels, as 0.5,0.5,0.5", "data", _CHANNELS)
]
Std = Annotated[
    str | None,
    Option("standard deviations of the red, green and blue channels, as 0.25,0.25,0.25", "data", _CHANNELS),
]
Crop = Annotated[
    float | None,
    Option("share of an image that its central crop keeps, above 64 pixels", "data", "the network's"),
]
Interpolation = Annotated[
    Literal["bilinear", "bicubic"] | None,
    Option("how images of more than 64 pixels are resized", "data", "the network's"),
]
MovedRoot = Annotated[str | None, Option("folder of the images, if they moved since training", "data")]
RepeatedArch = Annotated[
    str | None,
    Option(
        "the network's function again, if it is package.module:function: your own code runs only when you "
        "name it",
        "network",
    ),
]
ImageSize = Annotated[
    int | None, Option("side of the input images in pixels", "data", "the network's", least=8)
]
ShareOfStore = Annotated[
    str | None,
    Option(
        "share of the store to write: 2/3 for the second of three processes, or slurm for the task of an "
        "array of jobs; `store join` then completes the store",
        "machine",
        "all",
    ),
]
NViews = Annotated[
    int,
    Option(
        "views of each training image to store: the first as in evaluation, others cropped and flipped as "
        "in training",
        "data",
        least=1,
    ),
]
MapDtype = Annotated[
    Literal["float16", "float32", "bfloat16", "int8", "float8_e4m3"],
    Option("number format of the stored feature maps; int8 and float8_e4m3 are lossy", "storage"),
]
Layers = Annotated[
    str | None,
    Option(
        "layers of the network (its modules' names, as layer2,layer3) whose maps are stored too, of the "
        "training images",
        "storage",
        "the last layer alone",
    ),
]
LayerDtypes = Annotated[
    tuple[str, ...],
    Option(
        "number format of one layer's maps, as layer2=int8; may be repeated; others take --dtype", "storage"
    ),
]
Codec = Annotated[Literal["none", "zstd", "lz4"], Option("compression of the stored feature maps", "storage")]
Precision = Annotated[
    Literal["fp32", "bf16"], Option("precision of the network's computations; bf16 uses autocast", "machine")
]
ImagesAtOnce = Annotated[int, Option("images in one batch through the network", "machine", least=1)]
Device = Annotated[str, Option("where to compute: auto, cpu, cuda or cuda:N", "machine")]
Workers = Annotated[int, Option("processes that decode large images", "machine", least=0)]
ShotRule = Annotated[
    str,
    Option(
        "which classes count as Many, Medium and Few: decoupling, oltr, or two thresholds (200,50: Many has "
        "more than 200 training images, Few less than 50)",
        "output",
    ),
]


def check_shot_rule(rule: str) -> None:
    """Raise UserError for a shot rule that is neither a name nor two thresholds."""
    from analysis.shots import bounds  # numpy, which --help does without

    try:
        bounds(rule)
    except ValueError as error:
        raise UserError(f"--shot-rule {rule}: {error}") from error
