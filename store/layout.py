"""How a store's arrays are divided: rows into chunks, chunks into blocks.

A block is written, synced and committed at once: one shard (one file) of a zarr array, or one run of rows of
an HDF5 dataset. Arrays that the network fills (pooled features, maps, CAMs) share the blocks of their split.
Such a block is a whole number of batches with all views of their images, so that a resumed extraction sends
the same batches through the network as one that was never interrupted. Everything known beforehand (labels,
the FC layer, checksums) is one block. The scales of a lossy dtype have a row for each block of maps, and each
row is a block.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from store.schema import (
    CHECKSUM,
    CLASSIFIER,
    OF_IMAGES,
    OF_ROOT,
    SCALE,
    SCALED,
    STORED_AS,
    STREAMED,
    ArraySpec,
    maps_name,
    scale_name,
    split_arrays,
)

CHUNK_BYTES = 128 * 1024  # one large map or several small ones: small enough to read random rows
PACKED_CHUNK_BYTES = 16 * 1024  # before compression; smaller, since a chunk is decoded whole
BLOCK_BYTES = 64 * 1024**2  # of a split's widest array, as the network computes it


@dataclass(frozen=True)
class ArrayLayout:
    """Shape, dtype (numpy's name), chunking and codec of one array; a block is a whole number of chunks."""

    shape: tuple[int, ...]
    dtype: str
    chunk_rows: int
    block_rows: int
    codec: str = "none"

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    @property
    def n_blocks(self) -> int:
        """Number of blocks, the last one often partly filled."""
        return math.ceil(self.shape[0] / self.block_rows)

    def block(self, index: int) -> tuple[int, int]:
        """First row of a block, and the row after its last."""
        start = index * self.block_rows
        return start, min(start + self.block_rows, self.shape[0])

    @property
    def n_bytes(self) -> int:
        """Bytes of all rows."""
        return self.shape[0] * self.row_bytes


@dataclass(frozen=True)
class Chunking:
    """Sizes of chunks and blocks that differ from an extraction's.

    Attributes:
        chunk_bytes: most bytes of a chunk, before compression; None for CHUNK_BYTES or PACKED_CHUNK_BYTES.
        block_bytes: most bytes of a block of the split's widest array, which has one row at least; None for
            as many whole batches as fit in BLOCK_BYTES.
        train_rows: rows of the train split's blocks, where scales fix them; None to go by bytes.
    """

    chunk_bytes: int | None = None
    block_bytes: int | None = None
    train_rows: int | None = None


EXTRACTED = Chunking()


@dataclass(frozen=True)
class LayerMaps:
    """Maps of an earlier layer, as they are stored.

    Attributes:
        shape: (H, W, C).
        dtype: a member of MAP_DTYPES.
        codec: a member of CODECS.
    """

    shape: tuple[int, int, int]
    dtype: str
    codec: str = "none"

    @property
    def row_bytes(self) -> int:
        """Bytes of one map as the network computes it, which in a lossy dtype is float32."""
        return _map_itemsize(self.dtype) * math.prod(self.shape)


NO_LAYERS: Mapping[str, LayerMaps] = {}


def store_layout(
    sizes: dict[str, dict[str, int]],
    n_classes: int,
    map_dtype: str,
    batch_size: int,
    codec: str = "none",
    chunking: Chunking = EXTRACTED,
    n_views: int = 1,
    layers: Mapping[str, LayerMaps] = NO_LAYERS,
) -> dict[str, ArrayLayout]:
    """The layout of every array of a store, by its path in the tree.

    Args:
        sizes: lengths of the axes N, H, W, C of each split, and of D, T and G if it will hold digests, names
            and groups of its images.
        n_classes: K.
        map_dtype: of the feature maps, a member of MAP_DTYPES.
        batch_size: images in one batch of the network.
        codec: of the feature maps, a member of CODECS.
        chunking: sizes of chunks and blocks.
        n_views: rows of each training image.
        layers: maps of earlier layers of the training images, by the layer's name.
    """
    layouts = {name: _whole((1,), spec.dtype) for name, spec in OF_ROOT.items()}
    of_classifier = {"K": n_classes, "C": sizes["train"]["C"]}
    for name, spec in CLASSIFIER.items():
        layouts[f"classifier/{name}"] = _whole(tuple(of_classifier[a] for a in spec.axes), spec.dtype)
    for split, lengths in sizes.items():
        specs = split_arrays(split, map_dtype)
        specs |= {name: spec for name, spec in OF_IMAGES.items() if spec.axes[1] in lengths}
        batch_rows = batch_size * n_views if split == "train" else batch_size
        widest = _widest(specs, lengths, map_dtype, layers if split == "train" else NO_LAYERS)
        block_rows = _block_rows(split, widest, lengths["N"], batch_rows, chunking)
        lengths = lengths | {"n": math.ceil(lengths["N"] / block_rows)}
        for name, spec in specs.items():
            shape = tuple(lengths[axis] for axis in spec.axes)
            if name in STREAMED:
                of_maps = codec if name == "feature_map" else "none"
                layouts[f"{split}/{name}"] = _streamed(
                    shape, spec.dtype, block_rows, of_maps, chunking.chunk_bytes
                )
            elif name == SCALE:
                layouts[f"{split}/{name}"] = ArrayLayout(shape, spec.dtype, chunk_rows=1, block_rows=1)
            else:
                layouts[f"{split}/{name}"] = _whole(shape, spec.dtype)
    layouts |= _of_layers(layers, layouts["train/feature_map"], chunking)
    n_blocks = {path: layout.n_blocks for path, layout in layouts.items()} | {"metadata": 1}
    return layouts | {f"{CHECKSUM}/{path}": _whole((n,), "uint32") for path, n in n_blocks.items()}


def _of_layers(
    layers: Mapping[str, LayerMaps], beside: ArrayLayout, chunking: Chunking
) -> dict[str, ArrayLayout]:
    """Layouts of earlier layers, by path: in the blocks of the feature maps, with scales if lossy."""
    layouts = {}
    for layer, maps in layers.items():
        name, shape = maps_name(layer), (beside.shape[0], *maps.shape)
        dtype = STORED_AS.get(maps.dtype, maps.dtype)
        layouts[f"train/{name}"] = _streamed(
            shape, dtype, beside.block_rows, maps.codec, chunking.chunk_bytes
        )
        if maps.dtype in SCALED:
            scales = ArrayLayout((beside.n_blocks, maps.shape[2]), "float32", chunk_rows=1, block_rows=1)
            layouts[f"train/{scale_name(name)}"] = scales
    return layouts


def _map_itemsize(map_dtype: str) -> int:
    return 4 if map_dtype in SCALED else np.dtype(STORED_AS.get(map_dtype, map_dtype)).itemsize


def _widest(
    specs: dict[str, ArraySpec], lengths: dict[str, int], map_dtype: str, layers: Mapping[str, LayerMaps]
) -> int:
    """Bytes of a row of the widest array that the network fills."""
    widest = max((maps.row_bytes for maps in layers.values()), default=0)
    for name in STREAMED:
        if name in specs:
            of_map = name == "feature_map"
            size = _map_itemsize(map_dtype) if of_map else np.dtype(specs[name].dtype).itemsize
            widest = max(widest, size * math.prod(lengths[axis] for axis in specs[name].axes[1:]))
    return widest


def _block_rows(split: str, widest: int, n_rows: int, batch_rows: int, chunking: Chunking) -> int:
    """Rows of a block of a split: as many whole batches of its widest array as fit in BLOCK_BYTES.

    With a given block size they are a power of two, which the chunks of any array divide well.
    """
    if split == "train" and chunking.train_rows:
        return chunking.train_rows
    if chunking.block_bytes:
        fitting = max(1, chunking.block_bytes // widest).bit_length() - 1
        return 2 ** min(fitting, (n_rows - 1).bit_length())
    batches = min(BLOCK_BYTES // (widest * batch_rows), math.ceil(n_rows / batch_rows))
    return max(1, batches) * batch_rows


def _whole(shape: tuple[int, ...], dtype: str) -> ArrayLayout:
    return ArrayLayout(shape, dtype, chunk_rows=shape[0], block_rows=shape[0])


def _streamed(
    shape: tuple[int, ...], dtype: str, block_rows: int, codec: str, chunk_bytes: int | None
) -> ArrayLayout:
    chunk_bytes = chunk_bytes or (CHUNK_BYTES if codec == "none" else PACKED_CHUNK_BYTES)
    fitting = max(1, chunk_bytes // (math.prod(shape[1:]) * np.dtype(dtype).itemsize))
    chunk_rows = max(rows for rows in range(1, min(fitting, block_rows) + 1) if block_rows % rows == 0)
    return ArrayLayout(shape, dtype, chunk_rows, block_rows, codec)
