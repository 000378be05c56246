"""What a feature store holds: the only place that defines array names, axes and dtypes.

Letters, here and in every docstring of the project:
N samples, B batch, C channels, H×W spatial size, L = H·W positions, K classes, S stacked heads.
"""

from dataclasses import dataclass

FORMAT = "tailcache-feature-store"
SCHEMA_VERSION = 1
WITH_LAYERS = 2  # the version of stores that also hold maps of earlier layers
SPLITS = ("train", "val", "test")
MAP_DTYPES = ("float16", "float32", "bfloat16", "int8", "float8_e4m3")
SCALED = ("int8", "float8_e4m3")  # lossy: codes times a scale for each channel of a block
STORED_AS = {"bfloat16": "uint16", "float8_e4m3": "uint8"}  # the bits of dtypes that numpy does not have


@dataclass(frozen=True)
class ArraySpec:
    """One array: the meaning of its axes, one letter each, and its dtype."""

    axes: str
    dtype: str


CLASSIFIER = {"weight": ArraySpec("KC", "float32"), "bias": ArraySpec("K", "float32")}
EVERY_SPLIT = {
    "label": ArraySpec("N", "int32"),
    "sample_index": ArraySpec("N", "int64"),  # into the source's listing
    "view": ArraySpec("N", "int16"),  # 0 = evaluation transform
    "pooled": ArraySpec("NC", "float32"),  # from the maps before any rounding
}
TRAIN_ONLY = {
    "feature_map": ArraySpec("NHWC", "float16"),  # channels last: a drawn vector is contiguous
    "cam": ArraySpec("NHW", "float16"),
}
OF_IMAGES = {  # optional; D = 16 bytes, T and G = bytes of the longest name and group of a split
    "image_digest": ArraySpec("ND", "uint8"),  # XXH3-128 of the file, or of the pixels of one in memory
    "image_name": ArraySpec("NT", "uint8"),  # path relative to the root, UTF-8, then NUL
    "image_group": ArraySpec("NG", "uint8"),  # what images of one track or patient share, UTF-8, then NUL
}
FEATURE_MAP = "feature_map"
SCALE = "feature_map_scale"  # (n, C): a row for each of the n blocks of feature maps
LAYERS = "layers"  # group in train: maps (N, H, W, C) of earlier layers, by name
LAYER_SCALES = "layer_scales"  # group in train: the scales (n, C) of those in a lossy dtype, by name

FINISHED = "finished"  # at the root: time at which all else was on disk, in seconds since 1970 UTC
OF_ROOT = {FINISHED: ArraySpec("1", "int64")}  # optional; the axis 1 has length 1

CHECKSUM = "checksum"  # group with a uint32 for every block of every array, and one for the metadata
STREAMED = ("pooled", "feature_map", "cam")  # what the network fills, block by block; and LAYERS


def split_arrays(split: str, map_dtype: str) -> dict[str, ArraySpec]:
    """The arrays of one split, by name; `map_dtype` is a member of MAP_DTYPES."""
    if split != "train":
        return dict(EVERY_SPLIT)
    arrays = (
        EVERY_SPLIT | TRAIN_ONLY | {"feature_map": ArraySpec("NHWC", STORED_AS.get(map_dtype, map_dtype))}
    )
    return arrays | {SCALE: ArraySpec("nC", "float32")} if map_dtype in SCALED else arrays


def maps_name(layer: str | None) -> str:
    """Name within train of the maps of an earlier layer; of the feature maps for None."""
    return FEATURE_MAP if layer is None else f"{LAYERS}/{layer}"


def scale_name(maps: str) -> str:
    """Name within train of the scales of maps, by the name of the maps."""
    return SCALE if maps == FEATURE_MAP else f"{LAYER_SCALES}/{maps.partition('/')[2]}"


def layer_arrays(layer: str, map_dtype: str) -> dict[str, ArraySpec]:
    """The arrays of an earlier layer, by name within train."""
    name = maps_name(layer)
    arrays = {name: ArraySpec("NHWC", STORED_AS.get(map_dtype, map_dtype))}
    return arrays | {scale_name(name): ArraySpec("nC", "float32")} if map_dtype in SCALED else arrays


def in_blocks(path: str) -> bool:
    """Whether an array is one that the network fills, block by block."""
    split, _, name = path.partition("/")
    return name in STREAMED or (split == "train" and name.startswith(f"{LAYERS}/"))


def is_scale(path: str) -> bool:
    """Whether an array holds the scales of maps, a row for each block."""
    split, _, name = path.partition("/")
    return split == "train" and (name == SCALE or name.startswith(f"{LAYER_SCALES}/"))
